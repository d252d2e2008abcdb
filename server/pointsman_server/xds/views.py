"""What differs between clients: each client has a view, read from the ``Node`` of its first request.

Node metadata, all optional, in the object ``pointsman`` (strings, but for the list of families):

- ``ca_provider``: the certificate provider instance of a gRPC bootstrap that holds the CA of https URLs (gRFC A29);
- ``ca_file``: Envoy's file of CA certificates;
- ``listen``: where Envoy's listener is to be, ``IP:PORT``;
- ``families``: of an Envoy, the families that it routes to, ``tenant/service/env``, any part may be ``*``.
"""

from enum import StrEnum
from ipaddress import ip_address
from typing import Any, NamedTuple


class ClientKind(StrEnum):
    """How a client wants its resources."""

    GRPC = "grpc"
    ENVOY = "envoy"


DEFAULT_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
DEFAULT_LISTEN = "127.0.0.1:10000"
METADATA = "pointsman"
# The user agent of grpc-go.
GRPC_GO = "gRPC Go"
MAX_FAMILIES = 1_000
MAX_TEXT = 1_024
_MAX_PORT = 65_535


class View(NamedTuple):
    """The parameters of the resources of a client; clients whose ``shared`` is equal share resources.

    ``marks``: the client is to show when it has taken what a name leads to (``resources.routes``).
    """

    kind: ClientKind = ClientKind.GRPC
    ca_provider: str = ""
    ca_file: str = ""
    listen: str = ""
    families: tuple[str, ...] = ()
    marks: bool = False

    @property
    def shared(self) -> "View":
        """What resources other than the Listener depend on: Envoys with the same CAs have the same ones."""
        return self._replace(listen="", families=())


def view_of(node: Any) -> View:
    """Read the view of a client from its node. Malformed metadata is ignored."""
    fields = node.metadata.fields[METADATA].struct_value.fields if METADATA in node.metadata.fields else {}

    def text(name: str) -> str:
        value = fields[name].string_value if name in fields else ""
        return value if len(value) <= MAX_TEXT and value.isprintable() else ""

    if node.user_agent_name != "envoy":
        return View(ClientKind.GRPC, ca_provider=text("ca_provider"), marks=node.user_agent_name == GRPC_GO)
    listed = fields["families"].list_value.values if "families" in fields else ()
    families = {value.string_value for value in listed[:MAX_FAMILIES] if value.string_value}
    return View(
        ClientKind.ENVOY,
        ca_file=text("ca_file") or DEFAULT_CA_FILE,
        listen=listen if socket_address(listen := text("listen")) else DEFAULT_LISTEN,
        families=tuple(sorted(families)),
    )


def socket_address(text: str) -> tuple[str, int] | None:
    """Return the IP address and the port of ``IP:PORT``, an IPv6 address in brackets; None if it is not that."""
    host, _, port = text.rpartition(":")
    if not (port.isascii() and port.isdecimal() and 0 < int(port) <= _MAX_PORT):
        return None
    bracketed = host.startswith("[") and host.endswith("]")
    try:
        address = ip_address(host[1:-1] if bracketed else host)
    except ValueError:
        return None
    return (str(address), int(port)) if bracketed == (address.version == _IPV6) else None


_IPV6 = 6
