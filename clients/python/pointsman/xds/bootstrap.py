"""The bootstrap of a gRPC client: where xDS is, and who the client is (gRFC A27, A29, A47, A65, A97)."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pointsman.xds.names import AUTHORITY
from pointsman.xds.options import ControlPlane, Node, Program, Upstreams

CA_PROVIDER = "pointsman_ca"
"""The certificate provider that holds the CAs of https URLs; the node's metadata tells its name to the server."""
REFRESH = "600s"
"""How often gRPC reads files of certificates again: its own default."""
CALL_CREDENTIALS_VARIABLE = "GRPC_EXPERIMENTAL_XDS_BOOTSTRAP_CALL_CREDS"
SYSTEM_ROOTS_VARIABLE = "GRPC_EXPERIMENTAL_XDS_SYSTEM_ROOT_CERTS"
SERVER_NAME_VARIABLE = "GRPC_EXPERIMENTAL_XDS_SNI"

# With ignore_resource_deletion a client keeps what it has, should a server of another make ever delete it.
_SERVER_FEATURES = ("xds_v3", "ignore_resource_deletion")
_FALLBACK = "while the first server is down, a client that had connected to it follows no change"
_LOCALITY = ("region", "zone", "sub_zone")


class Bootstrap(NamedTuple):
    """A document, the environment variables that its reader needs, and remarks on what it cannot do.

    ``files`` are further documents that it refers to, by their paths.
    """

    document: dict[str, Any]
    environment: dict[str, str]
    notes: tuple[str, ...] = ()
    files: Mapping[str, dict[str, Any]] = {}


def grpc_bootstrap(program: Program, servers: ControlPlane, node: Node, upstreams: Upstreams) -> Bootstrap:
    """Return the bootstrap of a gRPC client. Raises ValueError for what the client cannot do."""
    if program is Program.NODE and (servers.by_tls or servers.token_file):
        raise ValueError(
            "Node cannot connect to xDS by TLS or with a token: grpc-js-xds knows plain text alone. Run a proxy beside "
            "it that connects by TLS, and give its address, without TLS: docs/xds.md"
        )
    if upstreams.listen or upstreams.families or upstreams.admin:
        raise ValueError("listen, family and admin are Envoy's: a gRPC client names what it calls in its target")
    document: dict[str, Any] = {
        "xds_servers": [_server(servers, address) for address in servers.servers],
        "node": {"id": node.id, "locality": locality(node)},
        "authorities": {AUTHORITY: {}},
    }
    if upstreams.ca_file:
        document["node"]["metadata"] = {"pointsman": {"ca_provider": CA_PROVIDER}}
        document["certificate_providers"] = {
            CA_PROVIDER: {
                "plugin_name": "file_watcher",
                "config": {"ca_certificate_file": upstreams.ca_file, "refresh_interval": REFRESH},
            }
        }
    return Bootstrap(document, _environment(program, servers, upstreams), _notes(program, servers, upstreams))


def locality(node: Node) -> dict[str, str]:
    """Return the locality as xDS has it; Node.js wants one, even if it is empty."""
    return dict(zip(_LOCALITY, node.locality, strict=False))


def _server(servers: ControlPlane, address: str) -> dict[str, Any]:
    found: dict[str, Any] = {"server_uri": address, "channel_creds": [_channel_credentials(servers)]}
    if servers.token_file:
        config = {"jwt_token_file": servers.token_file}
        found["call_creds"] = [{"type": "jwt_token_file", "config": config}]
    return found | {"server_features": list(_SERVER_FEATURES)}


def _channel_credentials(servers: ControlPlane) -> dict[str, Any]:
    if not servers.by_tls:
        return {"type": "insecure"}
    files = {
        "ca_certificate_file": servers.ca_file,
        "certificate_file": servers.cert_file,
        "private_key_file": servers.key_file,
    }
    config = {name: file for name, file in files.items() if file}
    return {"type": "tls", "config": config | {"refresh_interval": REFRESH}} if config else {"type": "tls"}


def _environment(program: Program, servers: ControlPlane, upstreams: Upstreams) -> dict[str, str]:
    found = {}
    if servers.token_file:  # without, gRPC ignores call_creds and sends no token
        found[CALL_CREDENTIALS_VARIABLE] = "true"
    if program is Program.GO and not upstreams.ca_file:
        found[SYSTEM_ROOTS_VARIABLE] = "true"
    if program is Program.GO:  # gRFC A101: without, it sends no server name, by which hosts choose their certificate
        found[SERVER_NAME_VARIABLE] = "true"
    return found


def _notes(program: Program, servers: ControlPlane, upstreams: Upstreams) -> tuple[str, ...]:
    notes = []
    if program is Program.NODE and not upstreams.ca_file:
        notes.append("https URLs will be refused: Node cannot use the CAs of the system; give a file of them")
    if len(servers.servers) > 1:  # gRFC A71
        who = "Node connects to the first server alone" if program is Program.NODE else _FALLBACK
        notes.append(f"{who}: better give one name that has the addresses of all")
    return tuple(notes)
