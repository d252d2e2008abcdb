"""What the Python client promises, module by module."""
