"""gRPC channels over the near-cache: calls go to the URL that is live, and follow it."""
