"""Envoy as the gRPC server: pyvoy runs an ASGI application inside of it."""
