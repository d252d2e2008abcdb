"""The shared cache and the shared quota."""
