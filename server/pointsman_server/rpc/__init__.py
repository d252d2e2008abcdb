"""The gRPC services, and what every call passes. Only this package and ``app`` import grpc."""

SERVICE = "pointsman.v1.RouteService"
HEALTH = "grpc.health.v1.Health"
# Of the role xds, on a port of its own.
XDS = "pointsman.v1.XdsService"
DISCOVERY = "envoy.service.discovery.v3.AggregatedDiscoveryService"
CLIENT_STATUS = "envoy.service.status.v3.ClientStatusDiscoveryService"
# One protocol under two names: current clients use v1, older ones v1alpha.
REFLECTION = ("grpc.reflection.v1.ServerReflection", "grpc.reflection.v1alpha.ServerReflection")
