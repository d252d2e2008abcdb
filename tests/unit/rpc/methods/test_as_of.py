"""The moments that requests name, and reads as of them."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import AsOf
from pointsman_server.domain.errors import InvalidField, TimeInFuture
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.rpc.methods import as_of
from tests.support.fakes import EPOCH, MemoryStore

KEY = RouteKey("team-a", "payments", "prod", "v1")
WHEN = datetime(2026, 11, 20, 14, 0, 0, 123456, tzinfo=UTC)


class History:
    """Has one change a second, the first at ``WHEN``; records what it is asked."""

    def __init__(self) -> None:
        self.moments: list[datetime] = []
        self.loads: list[tuple[Sequence[RouteKey], int]] = []

    async def revision_at(self, moment: datetime) -> int:
        self.moments.append(moment)
        return max(0, 1 + int((moment - WHEN).total_seconds()))

    async def load_as_of(self, keys: Sequence[RouteKey], revision: int) -> list[Snapshot]:
        self.loads.append((keys, revision))
        return [Snapshot(key, None, revision, EPOCH) for key in keys]


def history() -> Any:
    return History()


def stamp(moment: datetime, nanos: int = 0) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    message.nanos += nanos
    return message


async def test_a_revision_is_taken_as_it_is() -> None:
    assert await as_of.revision_of(AsOf(revision=0), history()) == 0
    assert await as_of.revision_of(AsOf(revision=17), history()) == 17


async def test_a_time_is_the_last_revision_then_to_the_microsecond_below() -> None:
    found = history()
    assert await as_of.revision_of(AsOf(time=stamp(WHEN + timedelta(seconds=4), 999)), found) == 5
    assert found.moments == [WHEN + timedelta(seconds=4)]


async def test_a_moment_must_be_set() -> None:
    with pytest.raises(InvalidField) as refused:
        await as_of.revision_of(AsOf(), history())
    assert [each.field for each in refused.value.violations] == ["as_of"]


@pytest.mark.parametrize("seconds", [-(10**18), -(2**63), 2**63 - 1])
@pytest.mark.parametrize("nanos", [0, -1, 1_000_000_000])
async def test_what_is_no_time_is_refused(seconds: int, nanos: int) -> None:
    with pytest.raises(InvalidField) as refused:
        await as_of.revision_of(AsOf(time=Timestamp(seconds=seconds, nanos=nanos)), history())
    assert [each.field for each in refused.value.violations] == ["as_of.time"]


async def test_a_time_in_the_future_is_refused_unless_clocks_may_differ_by_it() -> None:
    now = datetime.now(UTC)
    with pytest.raises(TimeInFuture) as refused:
        await as_of.revision_at(stamp(now + timedelta(minutes=2)), "after_time", history())
    assert refused.value.reason == "REVISION_IN_FUTURE"
    assert set(refused.value.metadata) == {"time", "now"}
    assert await as_of.revision_at(stamp(now + timedelta(seconds=30)), "after_time", history()) > 0


class Resolver:
    """Answers from the store."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.store.put(KEY)

    async def resolve(self, key: RouteKey, *, fully_consistent: bool) -> Answer:
        assert fully_consistent
        (snapshot,) = await self.store.load([key])
        return Answer(snapshot, Source.POSTGRES)


async def test_without_a_moment_the_store_is_read() -> None:
    found, resolver = history(), cast("Any", Resolver())
    snapshot = await as_of.load(KEY, pb.GetRequest(), resolver, found)
    assert snapshot.route
    assert found.loads == []


async def test_with_a_moment_the_history_is_read() -> None:
    found, resolver = history(), cast("Any", Resolver())
    snapshot = await as_of.load(KEY, pb.GetRequest(as_of=AsOf(revision=7)), resolver, found)
    assert snapshot == Snapshot(KEY, None, 7)
    assert found.loads == [([KEY], 7)]
