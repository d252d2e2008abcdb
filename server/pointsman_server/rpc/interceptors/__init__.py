"""What every call passes: see chain for the order and its reasons."""
