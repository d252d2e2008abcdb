"""What differs between clients: each client has a view, read from the ``Node`` of its first request.

Node metadata, all optional, in the object ``pointsman`` (strings, but for the list of families):

- ``ca_provider``: the certificate provider instance of a gRPC bootstrap that holds the CA of https URLs (gRFC A29);
- ``ca_file``: Envoy's file of CA certificates;
- ``listen``: where Envoy's listener is to be, ``HOST:PORT``;
- ``families``: of an Envoy, the families that it routes to, ``tenant/service/env``, any part may be ``*``.
"""

from enum import StrEnum
from typing import Any, NamedTuple


class ClientKind(StrEnum):
    """How a client wants its resources."""

    GRPC = "grpc"
    ENVOY = "envoy"


class View(NamedTuple):
    """The parameters of the resources of a client; equal views share resources."""

    kind: ClientKind = ClientKind.GRPC
    ca_provider: str = ""
    ca_file: str = ""
    listen: str = ""
    families: tuple[str, ...] = ()


DEFAULT_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
DEFAULT_LISTEN = "127.0.0.1:10000"


def view_of(node: Any) -> View:
    """Read the view of a client from its node. What is not as expected there is ignored."""
    fields = node.metadata.fields["pointsman"].struct_value.fields if "pointsman" in node.metadata.fields else {}

    def text(name: str, default: str = "") -> str:
        return fields[name].string_value or default if name in fields else default

    if node.user_agent_name == "envoy":
        listed = fields["families"].list_value.values if "families" in fields else ()
        families = tuple(sorted({value.string_value for value in listed if value.string_value}))
        return View(
            ClientKind.ENVOY,
            ca_file=text("ca_file", DEFAULT_CA_FILE),
            listen=text("listen", DEFAULT_LISTEN),
            families=families,
        )
    return View(ClientKind.GRPC, ca_provider=text("ca_provider"))
