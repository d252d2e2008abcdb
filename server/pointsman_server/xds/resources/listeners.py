"""Listeners: of a gRPC client one for each name, of an Envoy one for all."""

from typing import Any

from pointsman_server.xds.names import root_of
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.targets import Target
from pointsman_server.xds.views import DEFAULT_LISTEN, ClientKind, View, socket_address

# The filter that ends calls of what is not live: always there, because clients notice its configuration, not its
# appearance.
FAULT = "fault"
# Also the name of the RouteConfiguration of an Envoy.
ENVOY_LISTENER = "pointsman"
V3 = 2


def listener(view: View, name: str, _target: Target) -> Any:
    """Build a Listener (gRFC A27); its name is the one that was asked for, in either style (gRFC A47)."""
    if view.kind is ClientKind.ENVOY:
        return _of_envoy(view, name)
    listener = pb.Listener(name=name)
    listener.api_listener.api_listener.Pack(_manager(root_of(name)))
    return listener


def _of_envoy(view: View, name: str) -> Any:
    manager = _manager(ENVOY_LISTENER)
    manager.stat_prefix = ENVOY_LISTENER
    # Callers may name the port: names have none.
    manager.strip_any_host_port = True
    # How long a stream may be idle is for its two ends to say.
    manager.stream_idle_timeout.SetInParent()
    host, port = socket_address(view.listen) or socket_address(DEFAULT_LISTEN) or ("", 0)
    listener = pb.Listener(name=name)
    listener.address.socket_address.address = host
    listener.address.socket_address.port_value = port
    http = listener.filter_chains.add().filters.add(name="envoy.filters.network.http_connection_manager")
    http.typed_config.Pack(manager)
    return listener


def _manager(route_configuration: str) -> Any:
    manager = pb.HttpConnectionManager()
    manager.rds.route_config_name = route_configuration
    manager.rds.config_source.ads.SetInParent()
    manager.rds.config_source.resource_api_version = V3
    manager.http_filters.add(name=FAULT).typed_config.Pack(pb.HttpFault())
    manager.http_filters.add(name="router").typed_config.Pack(pb.Router())
    return manager
