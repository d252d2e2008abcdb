"""The commands: each parses its arguments, calls the client, prints the answer."""
