"""gRPC: what a call is, on the wire and on the way in. Only here and in ``app`` is grpc imported."""

SERVICE = "pointsman.v1.RouteService"
