"""Clusters and endpoints of both kinds of clients."""

from typing import Any

import pytest

from pointsman_server.xds.resources.clusters import cluster, cluster_names, load_assignment, members_of
from pointsman_server.xds.targets import FORBIDDEN, UNKNOWN, Slot, Target, Verdict
from pointsman_server.xds.views import ClientKind, View
from tests.support.xds_messages import plain

ROUTE, FAMILY = "v1~prod~payments~team-a", "prod~payments~team-a"
ADDRESS, ADDRESS_6, NAME = "http://127.0.0.1:8080", "http://[::1]:8080", "http://payments.internal"
GRPC = View()
ENVOY = View(ClientKind.ENVOY, ca_file="/ca.pem", listen="127.0.0.1:1")
EDS = {"eds_config": {"ads": {}, "resource_api_version": "V3"}}
MANY = 1_000_000_000
LIMITS = {
    "thresholds": [{"max_connections": MANY, "max_pending_requests": MANY, "max_requests": MANY, "max_retries": MANY}]
}
PROTOCOL = {
    "envoy.extensions.upstreams.http.v3.HttpProtocolOptions": {
        "@type": "HttpProtocolOptions",
        "use_downstream_protocol_config": {"http_protocol_options": {}, "http2_protocol_options": {}},
    }
}


def live(*urls: str, fallbacks: tuple[str, ...] = ()) -> Target:
    slots = tuple(Slot(f"v{number}", url, 10_000 // len(urls)) for number, url in enumerate(urls))
    return Target(Verdict.LIVE, slots, tuple(Slot(f"f{number}", url) for number, url in enumerate(fallbacks)))


def built(name: str, target: Target, view: View = GRPC) -> Any:
    return plain(cluster(view, name, target))


def endpoints(name: str, target: Target, view: View = GRPC) -> list[tuple[str, int]]:
    assignment = load_assignment(view, name, target)
    assert assignment.cluster_name == name
    addresses = [each.endpoint.address.socket_address for part in assignment.endpoints for each in part.lb_endpoints]
    return [(each.address, each.port_value) for each in addresses]


def test_an_address_is_an_endpoint() -> None:
    assert built(ROUTE, live(ADDRESS)) == {
        "name": ROUTE,
        "type": "EDS",
        "eds_cluster_config": {**EDS, "service_name": ROUTE},
        "connect_timeout": "5s",
        "circuit_breakers": LIMITS,
    }
    assert plain(load_assignment(GRPC, ROUTE, live(ADDRESS_6))) == {
        "cluster_name": ROUTE,
        "endpoints": [
            {
                "locality": {"region": "pointsman"},
                "lb_endpoints": [
                    {
                        "endpoint": {"address": {"socket_address": {"address": "::1", "port_value": 8080}}},
                        "load_balancing_weight": 1,
                    }
                ],
                "load_balancing_weight": 1,
            }
        ],
    }


def test_a_name_is_looked_up() -> None:
    assert built(ROUTE, live(NAME)) == {
        "name": ROUTE,
        "type": "LOGICAL_DNS",
        "dns_lookup_family": "ALL",
        "load_assignment": {
            "cluster_name": ROUTE,
            "endpoints": [
                {
                    "locality": {"region": "pointsman"},
                    "lb_endpoints": [
                        {
                            "endpoint": {
                                "address": {"socket_address": {"address": "payments.internal", "port_value": 80}}
                            },
                            "load_balancing_weight": 1,
                        }
                    ],
                    "load_balancing_weight": 1,
                }
            ],
        },
        "connect_timeout": "5s",
        "circuit_breakers": LIMITS,
    }
    assert endpoints(ROUTE, live(NAME)) == []


def test_envoy_speaks_the_protocol_of_the_caller_and_knows_the_name_of_the_host() -> None:
    for url, hostname in ((ADDRESS, "127.0.0.1:8080"), (NAME, "payments.internal")):
        assert built(ROUTE, live(url), ENVOY)["typed_extension_protocol_options"] == PROTOCOL
        message = cluster(ENVOY, ROUTE, live(url))
        assignment = message.load_assignment if url == NAME else load_assignment(ENVOY, ROUTE, live(url))
        assert assignment.endpoints[0].lb_endpoints[0].endpoint.hostname == hostname


@pytest.mark.parametrize("view", [GRPC, ENVOY])
@pytest.mark.parametrize("url", ["https://127.0.0.1", "https://payments.internal"])
def test_https_is_tls(view: View, url: str) -> None:
    socket = built(ROUTE, live(url), view)["transport_socket"]["typed_config"]

    validation = socket["common_tls_context"]["validation_context"]
    form = "match_subject_alt_names" if view is GRPC else "match_typed_subject_alt_names"
    assert url.removeprefix("https://") in str(validation[form])
    assert "transport_socket" not in built(ROUTE, live(url.replace("https", "http")), view)


@pytest.mark.parametrize("target", [UNKNOWN, FORBIDDEN, Target(Verdict.NOT_LIVE, (Slot("v1", NAME),))])
def test_grpc_clients_do_not_connect_to_what_is_not_live(target: Target) -> None:
    assert built(ROUTE, target) == built(ROUTE, live(ADDRESS))
    assert endpoints(ROUTE, target) == []


def test_grpc_clients_do_not_connect_to_what_they_cannot_be_led_to() -> None:
    assert built(ROUTE, live(f"{NAME}/path")) == built(ROUTE, live(ADDRESS))
    assert endpoints(ROUTE, live(f"{ADDRESS}/path")) == []


def test_envoy_keeps_what_is_not_active() -> None:
    # It connects when it has a call, and a cluster need not be made when the route is activated.
    assert endpoints(ROUTE, Target(Verdict.NOT_LIVE, (Slot("v1", ADDRESS),)), ENVOY) == [("127.0.0.1", 8080)]


def test_a_slot_of_a_family_has_members_in_grpc_clients() -> None:
    found = built(FAMILY, live(ADDRESS, fallbacks=(NAME, ADDRESS_6)))

    assert found == {
        "name": FAMILY,
        "connect_timeout": "5s",
        "cluster_type": {
            "name": "envoy.clusters.aggregate",
            "typed_config": {
                "@type": "ClusterConfig",
                "clusters": [f"{FAMILY}~~m0", f"{FAMILY}~~f0", f"{FAMILY}~~f1"],
            },
        },
    }


@pytest.mark.parametrize("target", [UNKNOWN, live(ADDRESS), live(ADDRESS, ADDRESS), live(ADDRESS, fallbacks=(NAME,))])
def test_a_slot_is_an_aggregate_cluster_always_and_a_route_never(target: Target) -> None:
    # grpcio 1.85 crashes when one becomes the other.
    for slot in (FAMILY, f"{FAMILY}~~1", f"{FAMILY}~~7"):
        assert "cluster_type" in built(slot, target)
        assert endpoints(slot, target) == []
    assert "cluster_type" not in built(ROUTE, target)


@pytest.mark.parametrize("target", [UNKNOWN, live(ADDRESS), live(ADDRESS, fallbacks=(NAME, f"{ADDRESS}/path"))])
def test_envoy_has_no_aggregate_clusters(target: Target) -> None:
    # Envoy 1.39 crashes when the members of one change.
    for name in (ROUTE, FAMILY, f"{FAMILY}~~1", f"{FAMILY}~~m0", f"{FAMILY}~~f0"):
        assert "cluster_type" not in built(name, target, ENVOY)
        assert members_of(ENVOY, name, target) == ()


def test_fallbacks_of_envoy_are_endpoints_of_one_cluster() -> None:
    target = live("https://payments.internal", fallbacks=(ADDRESS, "https://127.0.0.1", f"{NAME}/path"))

    for name in (FAMILY, f"{FAMILY}~~1"):
        found = cluster(ENVOY, name, target)
        assert found.type == found.STRICT_DNS
        places = [
            part.lb_endpoints[0].endpoint.address.socket_address.address for part in found.load_assignment.endpoints
        ]
        assert places == ["payments.internal", "127.0.0.1", "127.0.0.1"]
    assert cluster(ENVOY, ROUTE, target).type == found.LOGICAL_DNS


def test_members_lead_to_the_urls_of_slots_and_fallbacks() -> None:
    target = live(ADDRESS, ADDRESS_6, fallbacks=("http://127.0.0.2", "http://127.0.0.3"))

    places = {name: endpoints(f"{FAMILY}~~{name}", target) for name in ("m0", "m1", "f0", "f1")}
    assert places == {
        "m0": [("127.0.0.1", 8080)],
        "m1": [("::1", 8080)],
        "f0": [("127.0.0.2", 80)],
        "f1": [("127.0.0.3", 80)],
    }


def test_the_own_member_of_a_slot_is_the_same_whether_or_not_it_is_used() -> None:
    for target in (live(ADDRESS), live(ADDRESS, ADDRESS_6)):
        assert list(members_of(GRPC, f"{FAMILY}~~1", target)) == [f"{FAMILY}~~m1"]
        assert list(members_of(GRPC, f"{FAMILY}~~9", target)) == [f"{FAMILY}~~m9"]


def test_endpoints_of_envoy_stay_when_a_fallback_comes() -> None:
    without, beside = live(ADDRESS), live(ADDRESS, fallbacks=(NAME,))

    assert load_assignment(ENVOY, FAMILY, without) == load_assignment(ENVOY, FAMILY, beside)


def test_what_is_not_used_is_as_the_first_slot() -> None:
    target = live(ADDRESS, ADDRESS_6)

    for name in ("m9", "f0", "unknown", "1~~2"):
        assert endpoints(f"{FAMILY}~~{name}", target) in ([("127.0.0.1", 8080)], [])
    assert endpoints(f"{FAMILY}~~f0", target) == endpoints(f"{FAMILY}~~m9", target) == [("127.0.0.1", 8080)]
    assert endpoints(f"{ROUTE}~~9", target) == [("127.0.0.1", 8080)]


def test_fallbacks_that_are_not_carried_are_left_out() -> None:
    target = live(ADDRESS, fallbacks=(f"{NAME}/path", ADDRESS_6))

    assert list(members_of(GRPC, FAMILY, target)) == [f"{FAMILY}~~m0", f"{FAMILY}~~f0"]
    assert endpoints(f"{FAMILY}~~f0", target) == [("::1", 8080)]


def test_no_slot_has_a_fallback_to_its_own_host_or_one_that_it_has_tried() -> None:
    # grpc-go 1.85 is busy without end, and slow to call, while two members of an aggregate cluster resolve one name.
    same, other = f"{NAME}/", "http://other.internal"
    target = live(NAME, other, fallbacks=(same, other, ADDRESS, f"{ADDRESS}/"))

    assert list(members_of(GRPC, FAMILY, target)) == [f"{FAMILY}~~m0", f"{FAMILY}~~f1", f"{FAMILY}~~f2"]
    assert list(members_of(GRPC, f"{FAMILY}~~1", target)) == [f"{FAMILY}~~m1", f"{FAMILY}~~f0", f"{FAMILY}~~f2"]


def test_a_slot_of_envoy_has_another_cluster_where_it_has_another_path() -> None:
    """Its route has the path, so the two would change one after the other."""
    one, other, none = (live(f"{ADDRESS}{path}") for path in ("/one", "/other/", "/"))
    [name], [another], [plainly] = (cluster_names(ENVOY, FAMILY, target) for target in (one, other, none))

    assert len({name, another, plainly}) == 3
    assert plainly == FAMILY
    assert [name] == list(cluster_names(ENVOY, FAMILY, live(f"{ADDRESS_6}/one/")))
    assert endpoints(name, one, ENVOY) == endpoints(another, other, ENVOY) == [("127.0.0.1", 8080)]
    assert endpoints(name, other, ENVOY) == endpoints(FAMILY, one, ENVOY) == endpoints(name, none, ENVOY) == []
    assert list(cluster_names(GRPC, ROUTE, one)) == [ROUTE]


def test_all_clusters_of_a_root_are_listed() -> None:
    target = live(ADDRESS, ADDRESS_6, fallbacks=(NAME,))

    assert list(cluster_names(ENVOY, ROUTE, UNKNOWN)) == [ROUTE]
    assert list(cluster_names(ENVOY, FAMILY, UNKNOWN)) == [FAMILY]
    assert list(cluster_names(ENVOY, FAMILY, target)) == [FAMILY, f"{FAMILY}~~1"]
    assert list(cluster_names(GRPC, FAMILY, target)) == [
        FAMILY,
        f"{FAMILY}~~1",
        f"{FAMILY}~~m0",
        f"{FAMILY}~~f0",
        f"{FAMILY}~~m1",
    ]
