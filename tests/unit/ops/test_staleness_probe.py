"""The staleness of caches, measured by a heartbeat."""

from datetime import UTC, datetime

import pytest

from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import HEARTBEAT, Route, RouteKey, Snapshot
from pointsman_server.ops.staleness_probe import StalenessProbe, beat
from pointsman_server.writes.group_commit import GroupCommitter
from tests.support.fakes import ManualClock, MemoryCache, MemoryStore

BEGINNING = 1000.0


def shown(revision: int, beaten_at: float) -> Snapshot:
    when = datetime.fromtimestamp(beaten_at, UTC)
    return Snapshot(HEARTBEAT, Route(HEARTBEAT, "https://x.invalid", True, {}, revision, when, when), revision)


class Layer:
    """A layer that shows what the test says."""

    def __init__(self) -> None:
        self.shows: Snapshot | None = None
        self.failure: StoreUnavailable | None = None

    async def __call__(self, key: RouteKey) -> Snapshot | None:
        assert key == HEARTBEAT
        if self.failure:
            raise self.failure
        return self.shows


@pytest.fixture
def now() -> ManualClock:
    return ManualClock(BEGINNING)


@pytest.fixture
def layer() -> Layer:
    return Layer()


@pytest.fixture
def observed() -> list[tuple[str, float]]:
    return []


@pytest.fixture
def probe(layer: Layer, observed: list[tuple[str, float]], now: ManualClock) -> StalenessProbe:
    return StalenessProbe({"local": layer}, lambda name, seconds: observed.append((name, seconds)), now=now)


async def test_a_layer_is_stale_from_the_next_beat_to_the_last_look_that_misses_it(probe, layer, observed, now):
    layer.shows = shown(1, BEGINNING)
    await probe.look()
    now.advance(10.0)
    await probe.look()
    # The next beat was at +9.4; at +10.0 the layer still showed the one before.
    layer.shows = shown(2, BEGINNING + 9.4)
    now.advance(0.1)
    await probe.look()

    assert observed == [("local", pytest.approx(0.6))]


async def test_a_layer_that_shows_the_beat_at_the_first_look_after_it_was_not_stale(probe, layer, observed, now):
    layer.shows = shown(1, BEGINNING)
    await probe.look()
    layer.shows = shown(2, BEGINNING + 0.05)
    now.advance(0.1)
    await probe.look()

    assert observed == [("local", 0.0)]


async def test_nothing_is_told_before_a_second_beat_or_of_a_layer_that_shows_nothing(probe, layer, observed, now):
    await probe.look()
    layer.shows = shown(1, BEGINNING)
    await probe.look()
    layer.failure = StoreUnavailable()
    await probe.look()

    assert observed == []


async def test_a_layer_that_shows_nothing_for_a_while_is_not_stale_meanwhile(probe, layer, observed, now):
    layer.shows = shown(1, BEGINNING)
    await probe.look()
    layer.shows = None
    now.advance(50.0)
    await probe.look()
    layer.shows = shown(2, BEGINNING + 20.0)
    await probe.look()

    assert observed == [("local", 0.0)]


async def test_only_the_leader_beats(monkeypatch: pytest.MonkeyPatch) -> None:
    store = MemoryStore()
    committer = GroupCommitter(store, MemoryCache(), lambda _: None)
    leading = iter([False, True, True])

    class Over(Exception):
        pass

    def leads() -> bool:
        try:
            return next(leading)
        except StopIteration:
            raise Over from None

    with pytest.raises(Over):
        await beat(committer, leads, 0)

    assert [change.key for change in store.changes] == [HEARTBEAT, HEARTBEAT]
    assert {change.actor for change in store.changes} == {"pointsman"}
