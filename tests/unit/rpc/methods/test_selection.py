"""Select and BatchSelect: what they ask of the resolver and the history, what they answer, and what they count."""

from collections.abc import Sequence
from typing import Any, cast

import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import AsOf
from pointsman.v1.selection_pb2 import Choice
from pointsman_server.domain.codec import key_to_bytes
from pointsman_server.domain.errors import (
    AmbiguousVersion,
    InvalidField,
    NoActiveVersion,
    PointsmanError,
    StoreUnavailable,
)
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.reads.resolver import Resolver
from pointsman_server.rpc.call import begin_call
from pointsman_server.rpc.methods.selection import SelectionMethods
from pointsman_server.rpc.statuses import status_of
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.metrics import Metrics
from tests.support.call_context import CallContext
from tests.support.fakes import EPOCH, ManualClock, MemoryCache, MemoryStore
from tests.support.receipts import usage_methods

FAMILY = RouteKey("team-a", "payments", "prod", "")
V1, V2 = FAMILY._replace(version="v1"), FAMILY._replace(version="v2")
EXACT = pb.CONSISTENCY_FULLY_CONSISTENT


class World:
    """The methods on a store in memory; it is its own history, tokens and service."""

    def __init__(self) -> None:
        self.store, now = MemoryStore(), ManualClock()
        self.metrics, self.reads = Metrics(), ReadCounts()
        local = LocalCache(size=100, ttl=10, negative_ttl=10, now=now)
        resolver = Resolver(self.store, MemoryCache(now), local, observer=self.metrics, now=now)
        mine = cast("Any", self)
        self.methods = SelectionMethods(resolver, mine, mine, usage_methods(self.reads), self.metrics, FairShare())
        self.before: dict[int, Snapshot] = {}
        self.floors: list[tuple[int, str]] = []

    async def floor(self, min_revision: int, epoch: str) -> int:
        self.floors.append((min_revision, epoch))
        return 0

    async def load_as_of(self, keys: Sequence[RouteKey], revision: int) -> list[Snapshot]:
        assert list(keys) == [FAMILY]
        return [self.before[revision]]

    async def select(self, sticky_key: str = "user-1", **more: Any) -> pb.SelectResponse:
        return await self.methods.select(
            pb.SelectRequest(tenant="team-a", service="payments", env="prod", sticky_key=sticky_key, **more)
        )

    def value(self, name: str, **labels: str) -> float:
        return self.metrics.registry.get_sample_value(name, labels) or 0.0

    def count(self, outcome: str) -> float:
        return self.value("pointsman_select_requests_total", outcome=outcome)


@pytest.fixture
def world() -> World:
    begin_call(cast("Any", CallContext(("x-request-id", "mine"))))
    return World()


def selection(sticky_key: str = "user-1", service: str = "payments") -> pb.Selection:
    return pb.Selection(tenant="team-a", service=service, env="prod", sticky_key=sticky_key)


async def test_the_only_active_version_is_chosen_and_counted_as_read(world: World) -> None:
    world.store.put(V1, "https://one.internal")
    world.store.put(V2, active=False)
    response = await world.select()
    assert response.route.url == "https://one.internal"
    assert response.choice == Choice(rule=Choice.RULE_ONLY_ACTIVE, version="v1")
    assert (response.provenance.as_of_revision, response.provenance.epoch) == (2, EPOCH)
    assert response.provenance.source == pb.Provenance.SOURCE_POSTGRES
    assert world.count("only_active") == 1
    assert world.value("pointsman_select_seconds_count", source="POSTGRES") == 1
    assert dict(world.reads.of_key(key_to_bytes(V1))) == {"anonymous": 1}

    assert (await world.select()).provenance.source == pb.Provenance.SOURCE_LOCAL


async def test_traffic_divides_callers_and_says_so(world: World) -> None:
    world.store.put(V1)
    world.store.put(V2)
    traffic = world.store.divide(FAMILY, ("v1", 3000), ("v2", 7000))
    chosen = {key: (await world.select(key)).choice for key in ("user-1", "user-2", "user-3", "user-17")}
    assert {choice.version for choice in chosen.values()} == {"v1", "v2"}
    assert chosen["user-1"] == Choice(rule=Choice.RULE_SPLIT, version="v2", traffic_revision=traffic.revision)
    assert world.count("split") == 4


async def test_a_fallback_names_what_it_passed(world: World) -> None:
    world.store.put(V1, active=False)
    world.store.put(V2)
    world.store.divide(FAMILY, ("v1", 10_000), fallbacks=["v2"])
    choice = (await world.select()).choice
    assert choice == Choice(rule=Choice.RULE_FALLBACK, version="v2", inactive_versions=["v1"], traffic_revision=3)
    assert world.count("fallback") == 1


async def test_nothing_to_choose_is_an_error_and_counted(world: World) -> None:
    with pytest.raises(NoActiveVersion):
        await world.select()
    world.store.put(V1)
    world.store.put(V2)
    with pytest.raises(AmbiguousVersion) as refused:
        await world.select(min_revision=2)
    assert refused.value.metadata["revision"] == "2"
    assert (world.count("absent"), world.count("ambiguous")) == (1, 1)
    world.store.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await world.select(consistency=EXACT)
    assert world.count("failed") == 1
    assert not world.reads.of_key(key_to_bytes(V1))


async def test_min_revision_and_its_epoch_are_kept(world: World) -> None:
    world.store.put(V1)
    await world.select()
    world.store.put(V1, "https://two.internal")
    assert (await world.select()).route.revision == 1
    assert (await world.select(min_revision=2)).route.revision == 2
    world.store.put(V1, "https://three.internal")
    # A token of an epoch that is over requires nothing.
    assert (await world.select(min_revision=9, epoch="another")).route.revision == 2
    assert world.floors == [(9, "another")]
    assert (await world.select(consistency=EXACT)).route.revision == 3


async def test_as_of_reads_the_history(world: World) -> None:
    world.store.put(V1)
    (world.before[1],) = await world.store.load([FAMILY])
    world.store.put(V1, active=False)
    response = await world.select(as_of=AsOf(revision=1))
    assert (response.choice.version, response.provenance.as_of_revision) == ("v1", 1)
    assert response.provenance.source == pb.Provenance.SOURCE_POSTGRES
    with pytest.raises(NoActiveVersion):
        await world.select()


@pytest.mark.parametrize(
    ("more", "field"), [({"as_of": AsOf()}, "as_of"), ({"as_of": AsOf(revision=1), "min_revision": 1}, "min_revision")]
)
async def test_a_moment_that_is_none_or_goes_with_a_revision_is_refused(
    world: World, more: dict[str, Any], field: str
) -> None:
    with pytest.raises(InvalidField) as refused:
        await world.select(**more)
    assert [each.field for each in refused.value.violations] == [field]
    assert world.count("failed") == 0


async def test_a_batch_answers_each_as_select_would(world: World) -> None:
    world.store.put(V1)
    world.store.put(V2)
    world.store.divide(FAMILY, ("v1", 3000), ("v2", 7000))
    keys = [f"user-{number}" for number in range(300)]
    single = [await world.select(key) for key in keys]
    request = pb.BatchSelectRequest(selections=[*map(selection, keys), selection("x", "mail")])
    response = await world.methods.batch_select(request)

    assert [result.choice for result in response.results[:-1]] == [each.choice for each in single]
    assert [result.route for result in response.results[:-1]] == [each.route for each in single]
    absent = response.results[-1]
    assert absent.status == status_of(NoActiveVersion("team-a/mail/prod", (), 3, EPOCH))
    assert absent.provenance.as_of_revision == 3
    assert len(world.store.loads) == 2
    assert (world.count("split"), world.count("absent")) == (600, 1)


async def test_a_batch_names_what_failed_for_each(world: World) -> None:
    world.store.failure = StoreUnavailable()
    response = await world.methods.batch_select(pb.BatchSelectRequest(selections=[selection(), selection("y", "mail")]))
    failure: PointsmanError = StoreUnavailable()
    assert [result.status for result in response.results] == [status_of(failure)] * 2
    assert world.count("failed") == 2
