"""One module for each thing that is fuzzed: see ``tests.fuzz.harness`` for what it must have."""
