"""What the use cases require of the outside. The docstrings are law; tests/contract checks every implementation."""
