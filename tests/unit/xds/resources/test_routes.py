"""Route configurations of gRPC clients."""

from typing import Any

import pytest
from hypothesis import given, settings

from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resources.routes import fault, is_live, is_prepared, needs_of, route_configuration
from pointsman_server.xds.targets import FORBIDDEN, NOT_A_NAME, UNKNOWN, Slot, Target, Verdict
from pointsman_server.xds.views import View
from tests.support.xds_messages import plain
from tests.support.xds_targets import any_targets

ROUTE, FAMILY = "v1~prod~payments~team-a", "prod~payments~team-a"
URL = "http://127.0.0.1:1"
ONE = Target(Verdict.LIVE, (Slot("v1", URL),))
TWO = Target(Verdict.LIVE, (Slot("v1", URL, 9_000), Slot("v2", URL, 1_000), Slot("v1", URL, 0)))
NAMED = Slot("v2", "http://payments.internal")
GO = View(marks=True)
OPEN = {"@type": "HTTPFault", "abort": {"percentage": {}, "grpc_status": 14}}


def host(name: str, target: Target, view: View = View(), *, prepares: bool = False) -> Any:  # noqa: B008 - immutable
    configuration = plain(route_configuration(view, name, target, prepares=prepares))
    assert configuration["name"] == name
    (found,) = configuration["virtual_hosts"]
    assert (found["name"], found["domains"]) == (name, ["*"])
    return found


def weighted(*clusters: tuple[str, int]) -> Any:
    return {"weighted_clusters": {"clusters": [{"name": name, "weight": weight} for name, weight in clusters]}}


def test_a_route_has_one_cluster() -> None:
    assert host(ROUTE, ONE) == {
        "name": ROUTE,
        "domains": ["*"],
        "routes": [{"match": {"prefix": ""}, "route": {"cluster": ROUTE}}],
        "typed_per_filter_config": {"fault": OPEN},
    }


@pytest.mark.parametrize(
    ("target", "status"),
    [
        (UNKNOWN, 5),
        (Target(Verdict.NOT_LIVE, (Slot("v1", URL),)), 5),
        (FORBIDDEN, 7),
        (NOT_A_NAME, 3),
        (Target(Verdict.LIVE, (Slot("v1", f"{URL}/path"),)), 9),
    ],
)
def test_what_is_not_live_ends_every_call(target: Target, status: int) -> None:
    closed = host(ROUTE, target)

    assert closed["routes"] == host(ROUTE, ONE)["routes"]
    assert closed["typed_per_filter_config"]["fault"] == {
        "@type": "HTTPFault",
        "abort": {"percentage": {"numerator": 100}, "grpc_status": status},
    }


@pytest.mark.parametrize("target", [ONE, UNKNOWN, FORBIDDEN])
def test_a_family_names_a_slot_more_than_it_uses(target: Target) -> None:
    # grpc-go fails calls at clusters that are new in a route.
    assert host(FAMILY, target)["routes"] == [
        {"match": {"path": "/~/slots"}, "route": weighted((FAMILY, 1), (f"{FAMILY}~~1", 1))},
        {"match": {"prefix": ""}, "route": {"cluster": FAMILY}},
    ]


def test_a_family_is_divided_by_weights() -> None:
    known = [(FAMILY, 1), (f"{FAMILY}~~1", 1), (f"{FAMILY}~~2", 1), (f"{FAMILY}~~3", 1)]

    assert host(FAMILY, TWO)["routes"] == [
        {"match": {"path": "/~/slots"}, "route": weighted(*known)},
        {"match": {"prefix": ""}, "route": weighted((FAMILY, 9_000), (f"{FAMILY}~~1", 1_000))},
    ]


def test_one_slot_with_a_weight_is_a_cluster() -> None:
    target = Target(Verdict.LIVE, (Slot("v1", URL, 3_000), Slot("v1", URL, 0)))

    assert host(FAMILY, target)["routes"][1]["route"] == {"cluster": FAMILY}


FOUR = Target(Verdict.LIVE, tuple(Slot(f"v{number}", URL, 4_000 - 500 * number) for number in range(4)))


def test_before_slots_that_are_new_the_known_ones_take_all_calls() -> None:
    introduction = plain(route_configuration(View(), FAMILY, FOUR, introduces=True))["virtual_hosts"][0]["routes"]
    known, led = host(FAMILY, FOUR)["routes"]

    assert introduction[0] == known
    assert introduction[1]["route"] == weighted((FAMILY, 4_000), (f"{FAMILY}~~1", 3_500))
    assert led["route"] == weighted(
        (FAMILY, 4_000), (f"{FAMILY}~~1", 3_500), (f"{FAMILY}~~2", 3_000), (f"{FAMILY}~~3", 2_500)
    )


def test_slots_that_are_new_need_their_clusters_members_and_endpoints() -> None:
    slots = (*FOUR.slots[:3], Slot("v3", "http://payments.internal", 2_500))

    assert needs_of(View(), FAMILY, Target(Verdict.LIVE, slots)) == (
        (ResourceType.CDS, f"{FAMILY}~~2"),
        (ResourceType.CDS, f"{FAMILY}~~m2"),
        (ResourceType.EDS, f"{FAMILY}~~m2"),
        (ResourceType.CDS, f"{FAMILY}~~3"),
        (ResourceType.CDS, f"{FAMILY}~~m3"),
    )


@pytest.mark.parametrize("target", [ONE, TWO, UNKNOWN, Target(Verdict.NOT_LIVE, FOUR.slots)])
def test_slots_that_are_known_or_not_led_to_need_nothing(target: Target) -> None:
    assert needs_of(View(), FAMILY, target) == needs_of(View(), ROUTE, FOUR) == ()


@pytest.mark.parametrize("target", [UNKNOWN, FORBIDDEN, Target(Verdict.NOT_LIVE, (NAMED,))])
def test_what_is_not_live_names_a_marker_for_clients_that_are_marked(target: Target) -> None:
    known = host(FAMILY, target)["routes"][0]["route"]["weighted_clusters"]["clusters"]

    assert host(ROUTE, target, GO)["routes"] == [
        {"match": {"path": "/~/slots"}, "route": weighted((f"{ROUTE}~~k0", 1))},
        *host(ROUTE, target)["routes"],
    ]
    marked = host(FAMILY, target, GO)["routes"][0]["route"]["weighted_clusters"]["clusters"]
    assert marked == [*known, {"name": f"{FAMILY}~~k0", "weight": 1}]


@pytest.mark.parametrize("name", [ROUTE, FAMILY])
def test_a_preparation_lets_no_call_through_and_differs_by_the_marker_alone(name: str) -> None:
    target = Target(Verdict.LIVE, (NAMED,))
    prepared, live = host(name, target, GO, prepares=True), host(name, target, GO)

    assert prepared["typed_per_filter_config"] == host(name, UNKNOWN)["typed_per_filter_config"]
    assert prepared["routes"] == live["routes"] == host(name, target)["routes"]


def test_hosts_that_are_names_are_prepared_for_clients_that_are_marked() -> None:
    targets = {
        "address": ONE,
        "name": Target(Verdict.LIVE, (NAMED,)),
        "second": Target(Verdict.LIVE, (*ONE.slots, NAMED)),
        "fallback": Target(Verdict.LIVE, ONE.slots, (NAMED,)),
        "closed": Target(Verdict.NOT_LIVE, (NAMED,)),
        "not carried": Target(Verdict.LIVE, (Slot("v1", "http://payments.internal/path"),)),
    }

    prepared = {what for what, target in targets.items() if is_prepared(GO, target)}
    assert prepared == {"name", "second", "fallback"}
    assert not any(is_prepared(View(), target) for target in targets.values())


def test_both_numbers_of_the_fault_change_with_the_verdict() -> None:
    # grpcio ignores a change of the numerator alone.
    faults = {verdict: fault(verdict).abort for verdict in Verdict}
    opened = faults.pop(Verdict.LIVE)

    for closed in faults.values():
        assert closed.percentage.numerator != opened.percentage.numerator
        assert closed.grpc_status != opened.grpc_status
    assert len({closed.grpc_status for closed in faults.values()}) == len(faults)


@given(any_targets())
@settings(deadline=None)
def test_the_fault_is_there_and_says_whether_the_name_is_live(target: Target) -> None:
    abort = host(FAMILY, target)["typed_per_filter_config"]["fault"]["abort"]

    assert ("numerator" in abort["percentage"]) is not is_live(View(), target)
