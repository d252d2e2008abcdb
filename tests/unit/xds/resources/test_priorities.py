"""Fallbacks of Envoy."""

from pointsman_server.xds.protocol.messages import Cluster
from pointsman_server.xds.resources import priorities
from pointsman_server.xds.resources.destinations import Destination, destination_of
from pointsman_server.xds.views import ClientKind, View
from tests.support.xds_messages import plain

VIEW = View(ClientKind.ENVOY, ca_file="/ca.pem", listen="127.0.0.1:1")
URLS = ("http://127.0.0.1:1", "https://payments.internal", "https://[::1]:3")


def cluster() -> Cluster:
    found = (destination_of(VIEW.kind, url) for url in URLS)
    destinations = [each for each in found if isinstance(each, Destination)]
    made = Cluster(name="a")
    priorities.add(made, VIEW, destinations)
    return made


def test_each_place_has_a_priority() -> None:
    found = plain(cluster())

    assert (found["type"], found["dns_lookup_family"]) == ("STRICT_DNS", "V4_PREFERRED")
    parts = found["load_assignment"]["endpoints"]
    assert [part.get("priority", 0) for part in parts] == [0, 1, 2]
    addresses = [part["lb_endpoints"][0]["endpoint"]["address"]["socket_address"] for part in parts]
    assert [(each["address"], each["port_value"]) for each in addresses] == [
        ("127.0.0.1", 1),
        ("payments.internal", 443),
        ("::1", 3),
    ]


def test_each_place_has_its_own_certificate_or_none() -> None:
    found = cluster()
    asked = [dict(part.lb_endpoints[0].metadata.filter_metadata) for part in found.load_assignment.endpoints]
    assert [bool(each) for each in asked] == [False, True, True]
    for match, metadata in zip(found.transport_socket_matches, asked[1:], strict=True):
        assert match.match == metadata["envoy.transport_socket_match"]
    sans = [
        each["transport_socket"]["typed_config"]["common_tls_context"]["validation_context"]
        for each in plain(found)["transport_socket_matches"]
    ]
    assert [each["match_typed_subject_alt_names"][0]["matcher"]["exact"] for each in sans] == [
        "payments.internal",
        "::1",
    ]
    assert not found.HasField("transport_socket")


def test_envoy_gives_way_after_failed_connections_alone() -> None:
    found = plain(cluster())

    assert found["outlier_detection"] == {
        "split_external_local_origin_errors": True,
        "consecutive_local_origin_failure": 3,
        "interval": "1s",
        "base_ejection_time": "5s",
        "max_ejection_time": "5s",
        "max_ejection_percent": 100,
        "enforcing_consecutive_5xx": 0,
        "enforcing_consecutive_gateway_failure": 0,
        "enforcing_success_rate": 0,
        "enforcing_local_origin_success_rate": 0,
    }
    assert found["common_lb_config"] == {"healthy_panic_threshold": {}}
