"""How a client connects: target, TLS, credentials, environment."""
