"""The virtual hosts of Envoy."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman_server.xds.protocol.messages import RouteConfiguration
from pointsman_server.xds.resources.envoy import collisions, join, route_configuration, virtual_host
from pointsman_server.xds.targets import FORBIDDEN, NOT_A_NAME, UNKNOWN, Slot, Target, Verdict
from pointsman_server.xds.views import ClientKind, View
from tests.support.xds_messages import plain

VIEW = View(ClientKind.ENVOY, ca_file="/ca.pem", listen="127.0.0.1:1")
ROUTE, FAMILY = "v1~prod~payments~team-a", "prod~payments~team-a"
URL = "http://127.0.0.1:1"
FORWARD = {"auto_host_rewrite": True, "timeout": "0s", "max_stream_duration": {"grpc_timeout_header_max": "0s"}}


def live(*slots: tuple[str, int]) -> Target:
    return Target(Verdict.LIVE, tuple(Slot(f"v{number}", url, weight) for number, (url, weight) in enumerate(slots)))


def hosts(*parts: bytes) -> list[Any]:
    configuration = plain(RouteConfiguration.FromString(join(parts)))
    assert (configuration["name"], configuration["validate_clusters"]) == ("pointsman", False)
    return list(configuration["virtual_hosts"])


def closed(cluster: str, code: int, status: int, body: str) -> list[Any]:
    return [
        {
            "match": {"prefix": "/", "grpc": {}},
            "route": {"cluster": cluster},
            "typed_per_filter_config": {
                "fault": {"@type": "HTTPFault", "abort": {"percentage": {"numerator": 100}, "grpc_status": code}}
            },
        },
        {"match": {"prefix": "/"}, "direct_response": {"status": status, "body": {"inline_string": body}}},
    ]


REST = {
    "name": "*",
    "domains": ["*"],
    "routes": closed("pointsman~~nowhere", 5, 404, "nothing is live under this name\n"),
}


def test_other_names_are_not_found() -> None:
    assert hosts() == [REST]


def test_a_name_is_a_domain() -> None:
    assert hosts(virtual_host(VIEW, ROUTE, live((URL, 10_000)))) == [
        {
            "name": ROUTE,
            "domains": [ROUTE],
            "routes": [{"match": {"prefix": "/"}, "route": {"cluster": ROUTE, **FORWARD}}],
        },
        REST,
    ]


@pytest.mark.parametrize(
    ("target", "code", "status", "body"),
    [
        (UNKNOWN, 5, 404, "nothing is live under this name\n"),
        (FORBIDDEN, 7, 403, "this proxy may not read the tenant and env\n"),
        (NOT_A_NAME, 3, 404, "no route is called so\n"),
        (live((f"{URL}?a", 10_000)), 9, 502, "the URL of this name cannot be reached through xDS\n"),
    ],
)
def test_what_is_not_live_ends_calls_of_grpc_and_of_others(target: Target, code: int, status: int, body: str) -> None:
    (host, _) = hosts(virtual_host(VIEW, ROUTE, target))

    assert host["routes"] == closed(ROUTE, code, status, body)


# Of /api/.
API = "28262b0c"


def test_the_path_of_a_url_is_put_before_that_of_the_call() -> None:
    (host, _) = hosts(virtual_host(VIEW, ROUTE, live((f"{URL}/api", 10_000))))

    assert host["routes"] == [
        {"match": {"prefix": "/"}, "route": {"cluster": f"{ROUTE}~~0-{API}", "prefix_rewrite": "/api/", **FORWARD}}
    ]


def drawn(number: int) -> Any:
    return {"prefix": "/", "runtime_fraction": {"default_value": {"numerator": number, "denominator": "MILLION"}}}


def test_a_family_is_divided_by_routes_that_each_have_their_path() -> None:
    target = live((URL, 7_000), (f"{URL}/api", 2_000), (URL, 1_000), (URL, 0))

    (host, _) = hosts(virtual_host(VIEW, FAMILY, target))
    assert host["routes"] == [
        {"match": drawn(700_000), "route": {"cluster": FAMILY, **FORWARD}},
        {"match": drawn(900_000), "route": {"cluster": f"{FAMILY}~~1-{API}", "prefix_rewrite": "/api/", **FORWARD}},
        {"match": {"prefix": "/"}, "route": {"cluster": f"{FAMILY}~~2", **FORWARD}},
    ]


def test_versions_that_are_active_divide_what_the_others_leave() -> None:
    (host, _) = hosts(virtual_host(VIEW, FAMILY, live((URL, 3_000), (URL, 1_000), (URL, 0))))

    assert [route["match"] for route in host["routes"]] == [drawn(750_000), {"prefix": "/"}]


def test_a_call_that_was_not_sent_is_tried_again_where_there_are_fallbacks() -> None:
    target = Target(Verdict.LIVE, (Slot("v1", URL),), (Slot("v2", URL),))

    (host, _) = hosts(virtual_host(VIEW, FAMILY, target))
    assert host["routes"][0]["route"]["retry_policy"] == {
        "retry_on": "connect-failure",
        "num_retries": 1,
        "retry_priority": {
            "name": "envoy.retry_priorities.previous_priorities",
            "typed_config": {"@type": "PreviousPrioritiesConfig", "update_frequency": 1},
        },
    }


def test_the_configuration_of_one_name_is_for_people() -> None:
    configuration = route_configuration(VIEW, ROUTE, live((URL, 10_000)))

    assert configuration.name == ROUTE
    assert [host.name for host in configuration.virtual_hosts] == [ROUTE, "*"]
    assert [host.name for host in route_configuration(VIEW, "pointsman", NOT_A_NAME).virtual_hosts] == ["*"]


def test_of_names_that_differ_in_case_the_one_with_the_small_letter_is_served() -> None:
    assert collisions(["Prod~a~b", "prod~a~b", "prod~A~b", "prod~a~c"]) == {
        "Prod~a~b": "prod~a~b",
        "prod~A~b": "prod~a~b",
    }
    assert collisions(["aB", "Ab"]) == {"Ab": "aB"}
    assert collisions(["prod~a~b", "prod~a~b"]) == {}


@given(st.lists(st.text("aAbB", max_size=3), unique=True))
@settings(deadline=None)
def test_collisions_leave_one_name_of_each_domain(roots: list[str]) -> None:
    hidden = collisions(roots)
    served = [root for root in roots if root not in hidden]

    assert sorted(root.lower() for root in served) == sorted({root.lower() for root in roots})
    assert all(hidden[root] in served and hidden[root].lower() == root.lower() for root in hidden)
    assert hidden == collisions(reversed(roots))
