"""The bootstrap of an Envoy: everything that it needs to start, and to take the rest from xDS.

Envoy's own reference: https://www.envoyproxy.io/docs/envoy/latest/api-v3/config/bootstrap/v3/bootstrap.proto
"""

from ipaddress import ip_address
from typing import Any

from pointsman.rules import InvalidKey, split_family
from pointsman.xds import addresses
from pointsman.xds.addresses import Address
from pointsman.xds.bootstrap import Bootstrap, locality
from pointsman.xds.options import ControlPlane, Node, Upstreams

CLUSTER = "pointsman_xds"
"""The cluster of the servers."""
SYSTEM_CA_FILE = "/etc/ssl/certs/ca-certificates.crt"
DEFAULT_ADMIN = "127.0.0.1:9901"

_TYPE = "type.googleapis.com/envoy.extensions."
_READ_ONCE = "Envoy reads the token when it starts and not again: give a file to write to, and it is read again"
_TOKEN = "pointsman_token"  # noqa: S105 - the name of a secret
# By default Envoy pauses up to 30 s before it connects to another server.
_BACK_OFF = {"base_interval": "0.5s", "max_interval": "5s"}
_KEEPALIVE = {"interval": "30s", "timeout": "5s"}


def envoy_bootstrap(servers: ControlPlane, node: Node, upstreams: Upstreams, secret_file: str = "") -> Bootstrap:
    """Return a whole configuration. Raises ValueError for an address or a family that is none.

    Envoy reads a token again if its secret is in a file of its own, ``secret_file``, and not in the configuration.
    """
    hosts = [addresses.parse(each) for each in servers.servers]
    static: dict[str, Any] = {"clusters": [_cluster(servers, hosts, secret_file)]}
    secret = {"name": _TOKEN, "generic_secret": {"secret": {"filename": servers.token_file}}}
    if servers.token_file and not secret_file:
        static["secrets"] = [secret]
    source = {"ads": {}, "resource_api_version": "V3"}
    ads = {
        "api_type": "GRPC",
        "transport_api_version": "V3",
        "set_node_on_first_message_only": True,
        "grpc_services": [{"envoy_grpc": {"cluster_name": CLUSTER, "retry_policy": {"retry_back_off": _BACK_OFF}}}],
    }
    document = {
        "node": _node(node, upstreams),
        "admin": {"address": _socket(_admin(upstreams.admin or DEFAULT_ADMIN))},
        "dynamic_resources": {"ads_config": ads, "lds_config": source, "cds_config": source},
        "static_resources": static,
    }
    if not servers.token_file:
        return Bootstrap(document, {})
    if not secret_file:
        return Bootstrap(document, {}, notes=(_READ_ONCE,))
    secrets = {"resources": [{"@type": f"{_TYPE}transport_sockets.tls.v3.Secret", **secret}]}
    return Bootstrap(document, {}, files={secret_file: secrets})


def _node(node: Node, upstreams: Upstreams) -> dict[str, Any]:
    ours: dict[str, Any] = {}
    if upstreams.listen:
        ours["listen"] = str(_listen(upstreams.listen))
    if upstreams.ca_file:
        ours["ca_file"] = upstreams.ca_file
    if upstreams.families:
        ours["families"] = [_family(each) for each in upstreams.families]
    found: dict[str, Any] = {"id": node.id, "cluster": "pointsman", "locality": locality(node)}
    return found | ({"metadata": {"pointsman": ours}} if ours else {})


def _family(text: str) -> str:
    try:
        split_family("/".join("any" if part == "*" else part for part in text.split("/")))
    except InvalidKey:
        raise ValueError(f"family {text!r} must be tenant/service/env, any part may be *") from None
    return text


def _listen(text: str) -> Address:
    found = _by_number(text)
    if not (_is_ip(found.host) and found.port):
        raise ValueError(f"listen {text!r} must be an IP address and a port, as 0.0.0.0:10000")
    return found


def _admin(text: str) -> Address:
    found = _by_number(text)
    if not (_is_ip(found.host) and ip_address(found.host).is_loopback):
        raise ValueError(f"admin {text!r} must be on the loopback interface: Envoy asks nobody there who they are")
    return found


def _by_number(text: str) -> Address:
    found = addresses.parse(text)
    return found._replace(host="127.0.0.1") if found.host == "localhost" else found


def _cluster(servers: ControlPlane, hosts: list[Address], secret_file: str) -> dict[str, Any]:
    endpoints = [{"endpoint": {"address": _socket(each), "hostname": each.host}} for each in hosts]
    protocol: dict[str, Any] = {
        "@type": f"{_TYPE}upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {"http2_protocol_options": {"connection_keepalive": _KEEPALIVE}},
    }
    if servers.token_file:
        protocol["http_filters"] = _token_filters(secret_file)
    found: dict[str, Any] = {
        "name": CLUSTER,
        "type": "STRICT_DNS",
        # By default Envoy takes ::1 for localhost, where nobody may listen.
        "dns_lookup_family": "V4_PREFERRED",
        "connect_timeout": "5s",
        "load_assignment": {"cluster_name": CLUSTER, "endpoints": [{"lb_endpoints": endpoints}]},
        "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
    }
    if servers.by_tls:
        found["transport_socket"] = {"name": "envoy.transport_sockets.tls", "typed_config": _tls(servers, hosts)}
    return found


def _tls(servers: ControlPlane, hosts: list[Address]) -> dict[str, Any]:
    names = [
        {"san_type": "IP_ADDRESS" if _is_ip(host) else "DNS", "matcher": {"exact": host}}
        for host in dict.fromkeys(each.host for each in hosts)
    ]
    common: dict[str, Any] = {
        "alpn_protocols": ["h2"],
        "validation_context": {
            "trusted_ca": {"filename": servers.ca_file or SYSTEM_CA_FILE},
            "match_typed_subject_alt_names": names,
        },
    }
    if servers.cert_file:
        files = {"certificate_chain": {"filename": servers.cert_file}, "private_key": {"filename": servers.key_file}}
        common["tls_certificates"] = [files]
    context = {"@type": f"{_TYPE}transport_sockets.tls.v3.UpstreamTlsContext", "common_tls_context": common}
    return context if all(_is_ip(each.host) for each in hosts) else context | {"auto_host_sni": True}


def _token_filters(secret_file: str) -> list[dict[str, Any]]:
    """Return the filters of the cluster that send the token."""
    source = {"path_config_source": {"path": secret_file}, "resource_api_version": "V3"}
    credential = {
        "@type": f"{_TYPE}http.injected_credentials.generic.v3.Generic",
        "credential": {"name": _TOKEN, **({"sds_config": source} if secret_file else {})},
        "header": "authorization",
        "header_value_prefix": "Bearer ",
    }
    injector = {
        "@type": f"{_TYPE}filters.http.credential_injector.v3.CredentialInjector",
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": credential},
    }
    codec = {"@type": f"{_TYPE}filters.http.upstream_codec.v3.UpstreamCodec"}
    return [
        {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
        {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
    ]


def _socket(address: Address) -> dict[str, Any]:
    return {"socket_address": {"address": address.host, "port_value": address.port}}


def _is_ip(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True
