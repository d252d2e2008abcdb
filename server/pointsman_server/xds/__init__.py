"""The door for xDS: any gRPC client and Envoy route by the table, without our library. Loaded with role ``xds``."""
