"""The gRPC servers behind one setting, and TLS."""
