"""A table of routes in the memory of this process, kept current by Watch."""
