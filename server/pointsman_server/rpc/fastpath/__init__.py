"""Resolve and Select, and their batches, from bytes to bytes."""
