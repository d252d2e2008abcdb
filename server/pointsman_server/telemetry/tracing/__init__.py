"""Traces: spans of what the server does, and the context that they travel with."""
