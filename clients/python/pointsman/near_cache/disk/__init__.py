"""The snapshot from which a near-cache starts without a server."""
