"""Follow the changes of a server as they are made."""
