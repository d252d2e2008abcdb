"""The gRPC door. Only here and in ``app`` is grpc imported."""

SERVICE = "pointsman.v1.RouteService"
HEALTH = "grpc.health.v1.Health"
# The same protocol under two names: clients of today ask by the first, older ones by the second.
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
