"""The read path: local cache, shared cache, store."""
