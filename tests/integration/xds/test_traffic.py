"""Families: cut-overs, weights and fallbacks, in every kind of client, without one failed call."""

import grpc
import pytest

from pointsman.xds.options import Program
from tests.support.xds_clients.clients import XdsClient
from tests.support.xds_clients.fleet import OK, Fleet, check_none_failed, go_on

pytestmark = [pytest.mark.go, pytest.mark.node]

RATE = 100.0


def divided(clients: list[XdsClient], calls: int) -> dict[Program, dict[str, int]]:
    """Return how many of the next ``calls`` calls of each client, at least, each backend got."""
    before = {each.kind: each.probe.summary("family") for each in clients}
    go_on(clients, "family", calls)
    found = {}
    for each in clients:
        after = each.probe.summary("family").items()
        found[each.kind] = {
            backend: count - before[each.kind].get((code, backend), 0) for (code, backend), count in after
        }
    return found


def start(clients: list[XdsClient], family: str, backend: str, **options: object) -> None:
    """Let every client call the family, and wait until all reach ``backend``."""
    for each in clients:
        each.call("family", family, rate=RATE, **options)
    for each in clients:
        each.probe.wait("family", OK, backend)
        # An Envoy hears of the family only now.
        each.probe.reset("family")


def test_cut_overs_fail_no_call(shared: Fleet, clients: list[XdsClient], family: str) -> None:
    v1, v2 = f"{family}/v1", f"{family}/v2"
    shared.api.create(v1, shared.urls["b1"])
    shared.api.create(v2, shared.urls["b2"], active=False)
    start(clients, family, "b1")
    for key, backend in [(v2, "b2"), (v1, "b1")] * 4:
        shared.api.activate(key, exclusive=True)
        for each in clients:
            each.probe.wait("family", OK, backend)
    check_none_failed(clients, "family")


def test_cut_overs_between_addresses_and_names_fail_no_call(
    shared: Fleet, clients: list[XdsClient], family: str
) -> None:
    v1, v2 = f"{family}/v1", f"{family}/v2"
    shared.api.create(v1, shared.urls["b1"])
    shared.api.create(v2, shared.urls["b2"].replace("127.0.0.1", "localhost"), active=False)
    start(clients, family, "b1")
    for key, backend in [(v2, "b2"), (v1, "b1")] * 2:
        shared.api.activate(key, exclusive=True)
        for each in clients:
            each.probe.wait("family", OK, backend)
    check_none_failed(clients, "family")


def test_a_cut_over_ends_no_call_under_way(shared: Fleet, clients: list[XdsClient], family: str) -> None:
    shared.api.create(f"{family}/v1", shared.urls["b1"])
    shared.api.create(f"{family}/v2", shared.urls["b2"], active=False)
    start(clients, family, "b1", seconds=0.3)
    shared.api.activate(f"{family}/v2", exclusive=True)
    for each in clients:
        each.probe.wait("family", OK, "b2")
    check_none_failed(clients, "family")


def test_traffic_shifts_fail_no_call(shared: Fleet, clients: list[XdsClient], family: str) -> None:
    shared.api.create(f"{family}/v1", shared.urls["b1"])
    start(clients, family, "b1")
    # From one version to the other by steps, with the traffic set by the first, as ``pointsman traffic shift`` does.
    shared.api.set_traffic(family, {"v1": 10_000})
    shared.api.create(f"{family}/v2", shared.urls["b2"])
    for weight in (100, 2_500, 5_000, 9_900, 10_000):
        shared.api.set_traffic(family, {"v1": 10_000 - weight, "v2": weight})
        go_on(clients, "family", 20)
    assert all(counts.keys() >= {"b2"} for counts in divided(clients, 20).values())
    shared.api.create(f"{family}/v3", shared.urls["b3"])
    shared.api.set_traffic(family, {"v1": 2_000, "v2": 4_000, "v3": 4_000})
    go_on(clients, "family", 40)
    shared.api.set_traffic(family, {"v3": 10_000})
    for each in clients:
        each.probe.wait("family", OK, "b3")
    go_on(clients, "family", 20)
    shared.api.deactivate(f"{family}/v1")
    shared.api.deactivate(f"{family}/v2")
    shared.api.delete_traffic(family)
    go_on(clients, "family", 20)
    check_none_failed(clients, "family")


def test_several_new_versions_at_once_fail_no_call(shared: Fleet, clients: list[XdsClient], family: str) -> None:
    shared.api.create(f"{family}/v1", shared.urls["b1"])
    start(clients, family, "b1")
    shared.api.set_traffic(family, {"v1": 10_000})
    for number in (2, 3):
        shared.api.create(f"{family}/v{number}", shared.urls[f"b{number}"])
    for _ in range(3):
        shared.api.set_traffic(family, {"v1": 4_000, "v2": 3_000, "v3": 3_000})
        for each in clients:
            each.probe.wait("family", OK, "b3")
        shared.api.set_traffic(family, {"v1": 10_000})
        for each in clients:
            each.probe.wait("family", OK, "b1")
            each.probe.wait_for_calls("family", each.probe.calls("family") + 20)
    check_none_failed(clients, "family")


def test_calls_are_divided_by_weight_among_active_versions(
    shared: Fleet, clients: list[XdsClient], family: str
) -> None:
    for number in (1, 2, 3):
        shared.api.create(f"{family}/v{number}", shared.urls[f"b{number}"])
    shared.api.set_traffic(family, {"v1": 7_000, "v2": 3_000, "v3": 0})
    for each in clients:
        each.call("family", family, rate=200)
    for each in clients:
        each.probe.wait("family", OK)
        each.probe.reset("family")
    for counts in divided(clients, 400).values():
        # 0.7 of 400, within five times the standard deviation of 9.
        assert 0.58 < counts["b1"] / sum(counts.values()) < 0.82
        assert counts.get("b3", 0) == 0
    shared.api.deactivate(f"{family}/v1")
    for each in clients:
        each.probe.wait("family", OK, "b2")
    check_none_failed(clients, "family")


def test_without_an_active_version_that_has_a_weight_the_first_active_fallback_is_called(
    shared: Fleet, clients: list[XdsClient], family: str
) -> None:
    for number in (1, 2, 3):
        shared.api.create(f"{family}/v{number}", shared.urls[f"b{number}"], active=number != 2)
    shared.api.set_traffic(family, {"v1": 10_000}, fallbacks=["v2", "v3"])
    start(clients, family, "b1")
    shared.api.deactivate(f"{family}/v1")
    for each in clients:
        each.probe.wait("family", OK, "b3")
    shared.api.activate(f"{family}/v2")
    for each in clients:
        each.probe.wait("family", OK, "b2")
    check_none_failed(clients, "family")
    shared.api.deactivate(f"{family}/v2")
    shared.api.deactivate(f"{family}/v3")
    for each in clients:
        each.probe.wait("family", grpc.StatusCode.NOT_FOUND)


def test_a_fallback_is_called_while_a_version_refuses_connections(
    shared: Fleet, client: XdsClient, kind: Program, family: str
) -> None:
    name = f"weak-{kind}"
    port = shared.backends.open(name)
    shared.api.create(f"{family}/v1", f"http://127.0.0.1:{port}")
    shared.api.create(f"{family}/v2", shared.urls["b2"])
    shared.api.set_traffic(family, {"v1": 10_000}, fallbacks=["v2"])
    client.call("family", family)
    client.probe.wait("family", OK, name)
    shared.backends.close(name)
    client.probe.wait("family", OK, "b2")
    if kind is not Program.ENVOY:
        # Envoy tries the version again after ten seconds.
        shared.backends.open(name, f"127.0.0.1:{port}")
        client.probe.wait("family", OK, name)


def test_two_active_versions_without_traffic_are_not_found(shared: Fleet, client: XdsClient, family: str) -> None:
    shared.api.create(f"{family}/v1", shared.urls["b1"])
    client.call("family", family)
    client.probe.wait("family", OK, "b1")
    shared.api.create(f"{family}/v2", shared.urls["b2"])
    client.probe.wait("family", grpc.StatusCode.NOT_FOUND)
    shared.api.set_traffic(family, {"v2": 10_000})
    client.probe.wait("family", OK, "b2")
