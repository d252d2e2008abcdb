"""Send many routes: apply a file, or import one, in chunks that are retried."""
