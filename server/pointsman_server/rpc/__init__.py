"""The gRPC services, and what every call passes. Only this package and ``app`` import grpc."""

SERVICE = "pointsman.v1.RouteService"
HEALTH = "grpc.health.v1.Health"
# One protocol under two names: current clients use v1, older ones v1alpha.
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
