"""What each kind of client may have: a gRPC client what it asks for by name, an Envoy all that it selects."""
