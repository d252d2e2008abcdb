"""What a client that asks by name may have."""

import pytest

from pointsman_server.domain.identity import Scope
from pointsman_server.ports.store import Clock
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.snapshot import ResourceSnapshot
from pointsman_server.xds.sources.grpc_source import GrpcSource
from pointsman_server.xds.table import Table
from pointsman_server.xds.views import View
from tests.support.changes import make_change
from tests.support.xds_fake_stream import Listener

ROOT = "v1~prod~pay~acme"
OTHER = "v1~prod~pay~other"


@pytest.fixture
def snapshot() -> ResourceSnapshot:
    return ResourceSnapshot(Table(Clock("e1", 0)))


@pytest.fixture
def source(snapshot: ResourceSnapshot) -> GrpcSource:
    return GrpcSource(snapshot, View(), lambda scope: scope == Scope("acme", "prod"))


@pytest.mark.parametrize("kind", ResourceType)
@pytest.mark.parametrize("name", [ROOT, f"{ROOT}~~1", "no name", OTHER])
def test_every_name_has_a_resource(source: GrpcSource, kind: ResourceType, name: str) -> None:
    assert source.resource(kind, name).name == name


def test_what_the_caller_may_not_read_says_so_and_nothing_else(source: GrpcSource, snapshot: ResourceSnapshot) -> None:
    forbidden = snapshot.resource(View(), ResourceType.RDS, OTHER, forbidden=True)
    assert source.resource(ResourceType.RDS, OTHER) == forbidden
    snapshot.apply([make_change(1, tenant="other")])
    assert source.resource(ResourceType.RDS, OTHER) == forbidden
    assert source.resource(ResourceType.RDS, ROOT) == snapshot.resource(View(), ResourceType.RDS, ROOT)


def test_nothing_is_given_to_a_client_that_asks_for_all(source: GrpcSource) -> None:
    for kind in ResourceType:
        assert not source.names(kind)
        assert not source.names(kind, (ROOT,))
        assert not source.dependents(kind, (ROOT,))


def test_a_stream_is_told_of_what_it_watches_when_it_asks(source: GrpcSource, snapshot: ResourceSnapshot) -> None:
    stream = Listener()
    source.watch(stream, ROOT)
    source.watch_all(stream)
    snapshot.apply([make_change(1)])
    assert source.has_news(stream)
    assert stream.roots == []
    source.flush(stream)
    assert not source.has_news(stream)
    source.flush(stream)
    assert [ROOT in roots for roots in stream.roots] == [True]
    assert stream.checks == 0
    source.unwatch(stream, ROOT)
    snapshot.apply([make_change(2)])
    assert not source.has_news(stream)
    assert not source._forbidden, "it grows with every name that a client ever asked for"


def test_a_stream_that_leaves_watches_nothing_more(source: GrpcSource, snapshot: ResourceSnapshot) -> None:
    stream = Listener()
    source.watch(stream, ROOT)
    source.watch(stream, "v2~prod~pay~acme")
    snapshot.apply([make_change(1)])
    source.leave(stream)
    assert not source.has_news(stream)
    assert snapshot.name_count == 0


def test_what_it_may_read_is_asked_once_until_it_may_have_changed(snapshot: ResourceSnapshot) -> None:
    allowed, asked = True, 0

    def may_read(_scope: Scope) -> bool:
        nonlocal asked
        asked += 1
        return allowed

    source, stream = GrpcSource(snapshot, View(), may_read), Listener()
    source.watch(stream, ROOT)
    before = source.resource(ResourceType.RDS, ROOT)
    assert asked == 1
    allowed = False
    assert source.resource(ResourceType.RDS, ROOT) == before
    source.recheck()
    assert source.resource(ResourceType.RDS, ROOT) != before
    allowed = True
    source.recheck()
    assert source.resource(ResourceType.RDS, ROOT) == before
