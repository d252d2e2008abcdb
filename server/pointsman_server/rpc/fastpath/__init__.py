"""Resolve and BatchResolve from bytes to bytes."""
