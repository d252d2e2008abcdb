"""xds.envoy: what an Envoy starts with. That a real one takes it is tested in tests/e2e/xds."""

from typing import Any

import pytest

from pointsman.xds.envoy import envoy_bootstrap
from pointsman.xds.options import ControlPlane, Node, Upstreams

NODE = Node("x", ("eu",))


def made(servers: ControlPlane, upstreams: Upstreams | None = None) -> dict[str, Any]:
    return envoy_bootstrap(servers, NODE, upstreams or Upstreams()).document


def cluster(servers: ControlPlane) -> dict[str, Any]:
    [found] = made(servers)["static_resources"]["clusters"]
    return dict(found)


def test_everything_dynamic_comes_from_the_servers() -> None:
    document = made(ControlPlane(("a:1", "[::1]:2")))
    dynamic = document["dynamic_resources"]
    service = dynamic["ads_config"]["grpc_services"][0]["envoy_grpc"]
    name = service["cluster_name"]
    assert service["retry_policy"]["retry_back_off"]["max_interval"] == "5s"
    [servers] = document["static_resources"]["clusters"]
    assert dynamic["lds_config"] == dynamic["cds_config"] == {"ads": {}, "resource_api_version": "V3"}
    assert servers["name"] == name
    assert [
        each["endpoint"]["address"]["socket_address"]
        for each in servers["load_assignment"]["endpoints"][0]["lb_endpoints"]
    ] == [{"address": "a", "port_value": 1}, {"address": "::1", "port_value": 2}]
    assert "transport_socket" not in servers


def test_the_node_has_what_the_servers_must_know() -> None:
    assert made(ControlPlane(("a:1",)))["node"] == {"id": "x", "cluster": "pointsman", "locality": {"region": "eu"}}
    upstreams = Upstreams("/https-ca", "0.0.0.0:8080", ("team-a/*/prod", "*/*/*"))
    assert made(ControlPlane(("a:1",)), upstreams)["node"]["metadata"] == {
        "pointsman": {"listen": "0.0.0.0:8080", "ca_file": "/https-ca", "families": ["team-a/*/prod", "*/*/*"]}
    }


@pytest.mark.parametrize(
    ("admin", "expected"),
    [
        ("", ("127.0.0.1", 9901)),
        ("localhost:0", ("127.0.0.1", 0)),
        ("[::1]:1", ("::1", 1)),
        ("127.0.0.2:3", ("127.0.0.2", 3)),
    ],
)
def test_the_admin_interface_is_on_loopback(admin: str, expected: tuple[str, int]) -> None:
    address = made(ControlPlane(("a:1",)), Upstreams(admin=admin))["admin"]["address"]["socket_address"]
    assert (address["address"], address["port_value"]) == expected


@pytest.mark.parametrize("admin", ["0.0.0.0:9901", "10.0.0.1:1", "a.example:1", "9901"])
def test_another_admin_interface_is_refused(admin: str) -> None:
    with pytest.raises(ValueError, match=r"loopback|HOST:PORT"):
        made(ControlPlane(("a:1",)), Upstreams(admin=admin))


@pytest.mark.parametrize("listen", ["a.example:1", "10.0.0.1:0", "10.0.0.1", "8080"])
def test_a_listener_that_is_no_ip_address_and_port_is_refused(listen: str) -> None:
    with pytest.raises(ValueError, match=r"IP address and a port|HOST:PORT"):
        made(ControlPlane(("a:1",)), Upstreams(listen=listen))


def test_a_listener_may_be_on_localhost() -> None:
    metadata = made(ControlPlane(("a:1",)), Upstreams(listen="localhost:8080"))["node"]["metadata"]
    assert metadata["pointsman"]["listen"] == "127.0.0.1:8080"


@pytest.mark.parametrize("family", ["a", "a/b", "a/b/c/d", "a/b/**", "a//c", ""])
def test_a_malformed_family_is_refused(family: str) -> None:
    with pytest.raises(ValueError, match="tenant/service/env, any part may be"):
        made(ControlPlane(("a:1",)), Upstreams(families=(family,)))


def test_tls_verifies_the_host_of_each_server() -> None:
    servers = ControlPlane(("a.example:1", "10.0.0.1:2"), ca_file="/ca", cert_file="/cert", key_file="/key")
    context = cluster(servers)["transport_socket"]["typed_config"]
    common = context["common_tls_context"]
    assert context["auto_host_sni"] is True
    assert common["validation_context"] == {
        "trusted_ca": {"filename": "/ca"},
        "match_typed_subject_alt_names": [
            {"san_type": "DNS", "matcher": {"exact": "a.example"}},
            {"san_type": "IP_ADDRESS", "matcher": {"exact": "10.0.0.1"}},
        ],
    }
    assert common["tls_certificates"] == [
        {"certificate_chain": {"filename": "/cert"}, "private_key": {"filename": "/key"}}
    ]


def test_tls_without_files_trusts_the_system_and_verifies_all_the_same() -> None:
    context = cluster(ControlPlane(("10.0.0.1:1",), tls=True))["transport_socket"]["typed_config"]
    validation = context["common_tls_context"]["validation_context"]
    assert validation["trusted_ca"] == {"filename": "/etc/ssl/certs/ca-certificates.crt"}
    assert len(validation["match_typed_subject_alt_names"]) == 1
    assert "auto_host_sni" not in context  # RFC 6066, 3: an address is no server name


def injected(document: dict[str, Any]) -> dict[str, Any]:
    """Return what the cluster of the servers sends as token; the filter that sends it is before the last one."""
    [servers] = document["static_resources"]["clusters"]
    [protocol] = servers["typed_extension_protocol_options"].values()
    injector, codec = protocol["http_filters"]
    assert codec["name"] == "envoy.filters.http.upstream_codec"
    credential = injector["typed_config"]["credential"]["typed_config"]
    assert credential["header_value_prefix"] == "Bearer "
    return dict(credential["credential"])


def test_a_token_is_read_from_its_file_and_no_part_of_the_document() -> None:
    whole = envoy_bootstrap(ControlPlane(("a:1",), tls=True, token_file="/run/secrets/token"), NODE, Upstreams())
    [secret] = whole.document["static_resources"]["secrets"]
    assert secret["generic_secret"]["secret"] == {"filename": "/run/secrets/token"}
    assert injected(whole.document) == {"name": secret["name"]}
    assert (len(whole.notes), whole.files) == (1, {})


def test_a_token_that_is_read_again_needs_a_file_of_secrets() -> None:
    servers = ControlPlane(("a:1",), tls=True, token_file="/run/secrets/token")
    whole = envoy_bootstrap(servers, NODE, Upstreams(), "/etc/envoy.token.json")
    assert "secrets" not in whole.document["static_resources"]
    assert injected(whole.document)["sds_config"]["path_config_source"] == {"path": "/etc/envoy.token.json"}
    [secret] = whole.files["/etc/envoy.token.json"]["resources"]
    assert secret["name"] == injected(whole.document)["name"]
    assert secret["generic_secret"]["secret"] == {"filename": "/run/secrets/token"}
    assert whole.notes == ()


def test_a_cluster_with_everything_is_as_envoy_documents_it() -> None:
    servers = ControlPlane(("a.example:1",), ca_file="/ca", token_file="/token")
    types = "type.googleapis.com/envoy.extensions"
    secrets = {"path_config_source": {"path": "/secret.json"}, "resource_api_version": "V3"}
    credential = {
        "@type": f"{types}.http.injected_credentials.generic.v3.Generic",
        "credential": {"name": "pointsman_token", "sds_config": secrets},
        "header": "authorization",
        "header_value_prefix": "Bearer ",
    }
    injector = {
        "@type": f"{types}.filters.http.credential_injector.v3.CredentialInjector",
        "credential": {"name": "envoy.http.injected_credentials.generic", "typed_config": credential},
    }
    codec = {"@type": f"{types}.filters.http.upstream_codec.v3.UpstreamCodec"}
    http = {
        "@type": f"{types}.upstreams.http.v3.HttpProtocolOptions",
        "explicit_http_config": {
            "http2_protocol_options": {"connection_keepalive": {"interval": "30s", "timeout": "5s"}}
        },
        "http_filters": [
            {"name": "envoy.filters.http.credential_injector", "typed_config": injector},
            {"name": "envoy.filters.http.upstream_codec", "typed_config": codec},
        ],
    }
    tls = {
        "@type": f"{types}.transport_sockets.tls.v3.UpstreamTlsContext",
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "validation_context": {
                "trusted_ca": {"filename": "/ca"},
                "match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": "a.example"}}],
            },
        },
        "auto_host_sni": True,
    }
    address = {"socket_address": {"address": "a.example", "port_value": 1}}
    endpoint = {"endpoint": {"address": address, "hostname": "a.example"}}
    whole = envoy_bootstrap(servers, NODE, Upstreams(), "/secret.json")
    assert whole.document["static_resources"] == {
        "clusters": [
            {
                "name": "pointsman_xds",
                "type": "STRICT_DNS",
                "dns_lookup_family": "V4_PREFERRED",
                "connect_timeout": "5s",
                "load_assignment": {"cluster_name": "pointsman_xds", "endpoints": [{"lb_endpoints": [endpoint]}]},
                "typed_extension_protocol_options": {"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": http},
                "transport_socket": {"name": "envoy.transport_sockets.tls", "typed_config": tls},
            }
        ]
    }
    secret = {"name": "pointsman_token", "generic_secret": {"secret": {"filename": "/token"}}}
    assert whole.files == {
        "/secret.json": {"resources": [{"@type": f"{types}.transport_sockets.tls.v3.Secret", **secret}]}
    }


def test_the_rest_of_the_document_is_as_envoy_documents_it() -> None:
    back_off = {"base_interval": "0.5s", "max_interval": "5s"}
    service = {"cluster_name": "pointsman_xds", "retry_policy": {"retry_back_off": back_off}}
    source = {"ads": {}, "resource_api_version": "V3"}
    document = made(ControlPlane(("a:1",)))
    del document["static_resources"], document["node"]
    assert document == {
        "admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 9901}}},
        "dynamic_resources": {
            "ads_config": {
                "api_type": "GRPC",
                "transport_api_version": "V3",
                "set_node_on_first_message_only": True,
                "grpc_services": [{"envoy_grpc": service}],
            },
            "lds_config": source,
            "cds_config": source,
        },
    }


def test_without_a_token_there_is_neither() -> None:
    whole = envoy_bootstrap(ControlPlane(("a:1",), tls=True), NODE, Upstreams(), "/etc/envoy.token.json")
    assert (whole.notes, whole.files) == ((), {})


@pytest.mark.parametrize("server", ["unix:/run/x", "a", "ipv4:1.2.3.4:5,6.7.8.9:5"])
def test_a_server_that_is_no_host_and_port_is_refused(server: str) -> None:
    with pytest.raises(ValueError, match="HOST:PORT"):
        made(ControlPlane((server,)))
