"""TLS to the host of a URL, in the form that each kind of client takes."""

from ipaddress import IPv6Address
from typing import Any

from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.resources.destinations import Destination
from pointsman_server.xds.views import ClientKind, View

TRANSPORT_SOCKET = "envoy.transport_sockets.tls"


def secure(connections: Any, view: View, destination: Destination) -> None:
    """Make connections use TLS, with a certificate that is valid for the URL's host.

    ``connections`` has a ``transport_socket``, as a Cluster and a match of its endpoints have. gRPC clients use it with
    XdsCredentials only (gRFC A29). Without a SAN they, and Envoy, would take any certificate of the CA.
    """
    context = pb.UpstreamTlsContext()
    validation = context.common_tls_context.validation_context
    if view.kind is ClientKind.ENVOY:
        validation.trusted_ca.filename = view.ca_file
        _match_typed(validation, destination)
    else:
        _match_exact(validation, destination)
        if view.ca_provider:
            validation.ca_certificate_provider_instance.instance_name = view.ca_provider
        else:
            validation.system_root_certs.SetInParent()
    if not destination.literal:
        # Of a host that is an address there is no name to send (RFC 6066 §3).
        context.sni = destination.san
    connections.transport_socket.name = TRANSPORT_SOCKET
    connections.transport_socket.typed_config.Pack(context)


def _match_exact(validation: Any, destination: Destination) -> None:
    # Deprecated, and the only form that grpcio, grpc-go and grpc-js read.
    for san in dict.fromkeys((destination.san, _as_node_writes(destination))):
        validation.match_subject_alt_names.add(exact=san)


def _as_node_writes(destination: Destination) -> str:
    """Return the address as grpc-js compares it: Node.js writes all groups of one of IPv6, with capital letters."""
    if not destination.literal or ":" not in destination.san:
        return destination.san
    return ":".join(f"{int(group, 16):X}" for group in IPv6Address(destination.san).exploded.split(":"))


def _match_typed(validation: Any, destination: Destination) -> None:
    kind = pb.SubjectAltNameMatcher.IP_ADDRESS if destination.literal else pb.SubjectAltNameMatcher.DNS
    validation.match_typed_subject_alt_names.add(san_type=kind).matcher.exact = destination.san
