"""The write path: decide mutations, commit them in groups, import in bulk."""
