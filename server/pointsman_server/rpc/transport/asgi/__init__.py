"""gRPC over ASGI: serves RPC handlers to an ASGI server that supports HTTP/2 and response trailers."""
