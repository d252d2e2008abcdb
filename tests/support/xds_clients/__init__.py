"""Real xDS clients of each kind, the backends that they call, and what drives them in tests."""
