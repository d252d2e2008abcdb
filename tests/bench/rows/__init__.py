"""The parts of the benchmark: each is a context that starts what it needs and lends a ``Contest``."""
