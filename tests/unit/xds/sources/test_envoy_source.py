"""What an Envoy is given that asks for all: which names, and what changes of it."""

import asyncio
from collections.abc import Collection
from dataclasses import replace

import pytest

from pointsman_server.domain.errors import Overloaded
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import HEARTBEAT, ChangeKind
from pointsman_server.ports.store import Clock
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resources import envoy
from pointsman_server.xds.resources.listeners import ENVOY_LISTENER
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.sources import envoy_source as module
from pointsman_server.xds.sources.envoy_source import EnvoySource
from pointsman_server.xds.table import Table
from pointsman_server.xds.views import ClientKind, View
from tests.support.changes import make_change
from tests.support.xds_fake_stream import Listener

PAY, ADS = "prod~pay~acme", "prod~ads~acme"
V1_PAY, V1_ADS = f"v1~{PAY}", f"v1~{ADS}"


@pytest.fixture
def snapshot() -> ResourceSnapshot:
    table = Table(Clock("e1", 0))
    table.apply([make_change(1), make_change(2, "ads")])
    return ResourceSnapshot(table)


def source(snapshot: ResourceSnapshot, *families: str, tenants: Collection[str] = ()) -> EnvoySource:
    def may_read(scope: Scope) -> bool:
        return not tenants or scope.tenant in tenants

    return EnvoySource(snapshot, View(ClientKind.ENVOY, families=families), may_read)


def followed(snapshot: ResourceSnapshot, *families: str) -> tuple[EnvoySource, Listener]:
    made, stream = source(snapshot, *families), Listener()
    made.names(ResourceType.CDS)
    made.watch_all(stream)
    made.flush(stream)
    return made, stream


def domains(made: EnvoySource) -> list[str]:
    """Return the domains of the RouteConfiguration, but the one for all other names, which comes last."""
    body = made.resource(ResourceType.RDS, "pointsman").body
    content = pb.DiscoveryResponse.FromString(body).resources[0].value
    hosts = pb.RouteConfiguration.FromString(content).virtual_hosts
    *found, rest = [domain for host in hosts for domain in host.domains]
    assert rest == "*"
    return found


def roots(made: EnvoySource) -> set[str]:
    return {name.partition("~~")[0] for name in made.names(ResourceType.CDS)}


def test_it_has_every_route_and_family_in_one_order(snapshot: ResourceSnapshot) -> None:
    made = source(snapshot)
    assert made.names(ResourceType.LDS) == ("pointsman",)
    assert roots(made) == {PAY, ADS, V1_PAY, V1_ADS}
    assert domains(made) == sorted([PAY, ADS, V1_PAY, V1_ADS])
    assert made.names(ResourceType.LDS, (PAY,)) == ()
    # Asked for by name.
    assert not made.names(ResourceType.RDS)
    assert not made.names(ResourceType.EDS)


@pytest.mark.parametrize(
    ("pattern", "chosen"),
    [
        ("acme/pay/prod", {PAY, V1_PAY}),
        ("*/ads/*", {ADS, V1_ADS}),
        ("*/*/*", {PAY, V1_PAY, ADS, V1_ADS}),
        ("acme/pay", set()),
        ("acme/pay/test", set()),
    ],
)
def test_a_view_selects_families(snapshot: ResourceSnapshot, pattern: str, chosen: set[str]) -> None:
    made = source(snapshot, pattern)
    assert roots(made) == set(domains(made)) == chosen


def test_what_the_client_may_not_read_is_not_there(snapshot: ResourceSnapshot) -> None:
    assert roots(source(snapshot, tenants=("globex",))) == set()


def test_of_names_that_differ_in_case_only_one_is_a_domain(snapshot: ResourceSnapshot) -> None:
    snapshot.apply([make_change(3, "Pay")])
    made = source(snapshot)
    assert roots(made) >= {PAY, "prod~Pay~acme"}
    assert set(domains(made)) == {PAY, ADS, V1_PAY, V1_ADS}


def test_it_follows_changes_of_what_it_selects(snapshot: ResourceSnapshot) -> None:
    made, stream = followed(snapshot, "acme/pay/prod")
    before = made.resource(ResourceType.RDS, "pointsman")

    snapshot.apply([make_change(3, "ads", kind=ChangeKind.DEACTIVATED)])
    assert not made.has_news(stream)
    snapshot.apply([make_change(4, kind=ChangeKind.DEACTIVATED)])
    made.flush(stream)

    assert stream.roots == [{PAY, V1_PAY}]
    assert made.dependents(ResourceType.RDS, [PAY]) == ("pointsman",)
    assert not made.dependents(ResourceType.RDS, [ADS])
    assert not made.dependents(ResourceType.CDS, [PAY])
    assert made.resource(ResourceType.RDS, "pointsman").version != before.version


def test_routes_come_and_go(snapshot: ResourceSnapshot) -> None:
    made, stream = followed(snapshot)
    snapshot.apply([make_change(3, "new")])
    made.flush(stream)
    new = {"prod~new~acme", "v1~prod~new~acme"}
    assert {name.partition("~~")[0] for name in made.names(ResourceType.CDS, stream.roots[-1])} == new
    assert set(domains(made)) == {PAY, ADS, V1_PAY, V1_ADS} | new

    snapshot.apply([make_change(4, "new", kind=ChangeKind.DELETED)])
    made.flush(stream)
    assert not made.names(ResourceType.CDS, stream.roots[-1])
    assert set(domains(made)) == {PAY, ADS, V1_PAY, V1_ADS}


def test_another_table_may_have_anything(snapshot: ResourceSnapshot) -> None:
    made, stream = followed(snapshot)
    table = Table(Clock("e2", 0))
    table.apply([make_change(1, "other")])

    snapshot.replace(table)
    made.flush(stream)

    assert stream.checks == 1
    assert roots(made) == set(domains(made)) == {"prod~other~acme", "v1~prod~other~acme"}
    made.flush(stream)
    assert stream.checks == 1


def test_a_stream_that_has_ended_is_told_nothing(snapshot: ResourceSnapshot) -> None:
    made, stream = followed(snapshot)
    for root in (V1_PAY, "v9~prod~none~acme"):
        made.watch(stream, root)
    made.leave(stream)
    snapshot.apply([make_change(3)])
    assert not made.has_news(stream)
    assert snapshot.name_count == 0


def test_a_name_that_is_asked_for_is_watched_as_long_as_it_is_also_selected(snapshot: ResourceSnapshot) -> None:
    made, stream = followed(snapshot, "acme/pay/prod")
    for root in (V1_PAY, V1_ADS):
        made.watch(stream, root)
    for root in (V1_PAY, V1_ADS):
        made.unwatch(stream, root)
    snapshot.apply([make_change(3, "ads")])
    assert not made.has_news(stream)
    snapshot.apply([make_change(4)])
    assert made.has_news(stream)


def test_a_name_that_was_asked_for_once_goes_with_its_route(snapshot: ResourceSnapshot) -> None:
    made, stream = followed(snapshot, "acme/pay/prod")
    made.watch(stream, V1_PAY)
    made.unwatch(stream, V1_PAY)
    snapshot.apply([make_change(3, kind=ChangeKind.DELETED)])
    assert snapshot.name_count == 0


async def test_its_stream_is_woken_with_the_window(snapshot: ResourceSnapshot) -> None:
    _, stream = followed(snapshot)
    snapshot.apply([make_change(3)])
    await snapshot.step()
    assert stream.woken == 1


def test_what_the_client_may_no_longer_read_goes(snapshot: ResourceSnapshot) -> None:
    tenants = ["acme"]
    made = source(snapshot, tenants=tenants)
    assert roots(made) == {PAY, ADS, V1_PAY, V1_ADS}
    tenants[:] = ["globex"]
    assert roots(made) == set()
    assert snapshot.name_count == 0
    tenants[:] = ["acme"]
    assert set(domains(made)) | roots(made) == {PAY, ADS, V1_PAY, V1_ADS}


async def test_it_prepares_what_is_asked_for_and_follows_meanwhile(snapshot: ResourceSnapshot) -> None:
    snapshot.apply([make_change(number, f"s{number}") for number in range(3, 10)])
    made, stream = source(snapshot, "*/pay/*", "*/ads/*", "*/new/*", "*/s9/*"), Listener()
    preparing = asyncio.create_task(made.prepare())
    await asyncio.sleep(0)
    gone = [make_change(number, name, kind=ChangeKind.DELETED) for number, name in ((11, "ads"), (12, "s9"))]
    snapshot.apply([make_change(10, "new"), *gone])
    await preparing
    await snapshot.step()
    assert made.has_news(stream), "it takes the news when it begins"

    assert roots(made) == {PAY, V1_PAY, "prod~new~acme", "v1~prod~new~acme"}
    made.flush(stream)
    snapshot.apply([make_change(13)])
    await snapshot.step()
    assert stream.woken == 1


async def test_it_drops_everything_where_the_client_goes_while_it_prepares(snapshot: ResourceSnapshot) -> None:
    snapshot.apply([make_change(number, f"s{number}") for number in range(3, 30)])
    made = source(snapshot)
    preparing = asyncio.create_task(made.prepare())
    await asyncio.sleep(0)
    assert 0 < snapshot.name_count < 2 * 29, "it takes turns"
    preparing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await preparing
    assert snapshot.name_count == 0
    snapshot.apply([make_change(3)])
    assert not made.has_news(Listener())


@pytest.mark.parametrize(
    ("families", "listen", "names"),
    [((), "", {PAY, ADS, V1_PAY, V1_ADS}), (("acme/pay/prod",), "", {PAY, V1_PAY}), ((), "127.0.0.1:1", None)],
)
async def test_envoys_share_what_is_built_whatever_they_select_and_wherever_they_listen(
    snapshot: ResourceSnapshot,
    monkeypatch: pytest.MonkeyPatch,
    families: tuple[str, ...],
    listen: str,
    names: set[str] | None,
) -> None:
    first = source(snapshot)
    await first.prepare()
    monkeypatch.setattr(envoy, "virtual_host", None)
    other = EnvoySource(snapshot, View(ClientKind.ENVOY, families=families, listen=listen), lambda _scope: True)
    await other.prepare()
    assert set(domains(other)) == (names or {PAY, ADS, V1_PAY, V1_ADS})
    found, others = (each.resource(ResourceType.CDS, V1_PAY) for each in (first, other))
    assert found is others


def test_each_envoy_has_a_listener_where_it_wants_it(snapshot: ResourceSnapshot) -> None:
    for port in (1, 2):
        view = View(ClientKind.ENVOY, listen=f"127.0.0.1:{port}")
        made = EnvoySource(snapshot, view, lambda _scope: True).resource(ResourceType.LDS, ENVOY_LISTENER)
        (packed,) = pb.DiscoveryResponse.FromString(made.body).resources
        assert pb.Listener.FromString(packed.value).address.socket_address.port_value == port


def test_resources_by_name_are_those_of_the_root(snapshot: ResourceSnapshot) -> None:
    made = source(snapshot)
    assert made.resource(ResourceType.CDS, V1_PAY) == snapshot.resource(made._view, ResourceType.CDS, V1_PAY)


async def test_an_envoy_that_selects_too_much_is_told_what_to_do(
    snapshot: ResourceSnapshot, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "MOST_NAMES", 3)
    with pytest.raises(Overloaded, match=r"selects 4 names .* may have 3: list what it routes to") as raised:
        await source(snapshot).prepare()
    assert raised.value.metadata == {"limit": "xds_names"}
    assert not snapshot.name_count
    await source(snapshot, "acme/pay/prod").prepare()
    assert snapshot.name_count == 2


def test_the_route_of_the_heartbeat_is_not_served(snapshot: ResourceSnapshot) -> None:
    change = make_change(3)
    assert change.after
    snapshot.apply([replace(change, key=HEARTBEAT, after=replace(change.after, key=HEARTBEAT))])
    assert snapshot.table.has_family("internal~heartbeat~pointsman")
    assert roots(source(snapshot)) == {PAY, ADS, V1_PAY, V1_ADS}
    assert roots(source(snapshot, "pointsman/*/*")) == set()
