"""The outside: every adapter implements a port, and only adapters import drivers."""
