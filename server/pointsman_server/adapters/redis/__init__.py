"""Redis: the shared cache and the shared quota."""
