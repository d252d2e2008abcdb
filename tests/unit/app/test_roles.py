"""app.roles: what waits for Kafka's topic, what is counted, and how often the feed asks."""

import asyncio
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from pointsman_server.app import roles
from pointsman_server.config.settings import Settings
from pointsman_server.domain.routes import Change
from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.ports.broker import BrokerUnavailable, Poison
from pointsman_server.ports.cache import CacheUnavailable
from pointsman_server.ports.store import Clock
from pointsman_server.telemetry.metrics import Metrics
from tests.support.changes import make_change

POISON = Poison("route-events", 0, 7, "no change", b"x")


class Scene:
    """The roles over a Kafka that is away for some questions, and an epoch that is known after some pauses."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.away = 0
        self.asked = 0
        self.epoch_after = 0
        self.last: Sequence[Change] = ()
        self.pauses: list[float] = []
        self.ran = False
        self.epochs = EpochTracker()
        self.dependencies: Any = SimpleNamespace(
            kafka=object(), epochs=self.epochs, topics=SimpleNamespace(ready=self._has_topics)
        )
        self.settings = Settings(kafka_topic="changes")
        monkeypatch.setattr(roles, "kafka", SimpleNamespace(last_changes=self._last_changes))
        monkeypatch.setattr(roles, "asyncio", SimpleNamespace(sleep=self._sleep))
        self.know_epoch()

    def know_epoch(self) -> None:
        if not self.epoch_after:
            self.epochs.read(Clock("e1", 1), self.epochs.seen)

    async def run_with_topic(self) -> None:
        async def run() -> None:
            self.ran = True

        await roles.run_with_topic(self.dependencies, run)

    def _question(self) -> None:
        if self.away:
            self.away -= 1
            raise BrokerUnavailable

    async def _has_topics(self) -> bool:
        self.asked += 1
        if self.away:
            self.away -= 1
            return False
        return True

    async def _last_changes(self, _cluster: object, topic: str) -> Sequence[Change]:
        assert topic == "changes"
        self._question()
        return self.last

    async def _sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        if self.epoch_after:
            self.epoch_after -= 1
            self.know_epoch()
        await asyncio.sleep(0)


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch) -> Scene:
    return Scene(monkeypatch)


async def test_with_broker_and_epoch_there_it_runs_at_once(scene: Scene) -> None:
    await scene.run_with_topic()

    assert scene.ran
    assert scene.pauses == []
    assert scene.asked == 1


async def test_it_waits_for_the_topic(scene: Scene) -> None:
    scene.away = 3
    await scene.run_with_topic()

    assert scene.ran
    assert len(scene.pauses) == 3


async def test_it_waits_for_the_epoch_of_the_store(scene: Scene) -> None:
    scene.epochs = scene.dependencies.epochs = EpochTracker()
    scene.epoch_after = 2
    await scene.run_with_topic()

    assert scene.ran
    assert len(scene.pauses) == 2


async def test_what_kafka_knows_is_witnessed_once_it_answers(scene: Scene) -> None:
    scene.away = 2
    scene.last = [make_change(4), make_change(9), make_change(6)]
    await roles.witness_last_changes(scene.settings, scene.dependencies)

    assert scene.pauses == [1, 1]
    assert scene.epochs.seen == Clock("e1", 9)


class Counted:
    """A handler and a way to set aside, counted."""

    def __init__(self) -> None:
        self.metrics = Metrics()
        self.epochs = EpochTracker()
        self.epochs.read(Clock("e1", 1), self.epochs.seen)
        self.failure: Exception | None = None
        self.handle = roles.count_changes("cache", self._work, self.epochs, self.metrics)
        self.set_aside = roles.count_poison("cache", self._work, self.metrics)

    async def _work(self, _given: object) -> None:
        if self.failure:
            raise self.failure

    def counts(self) -> tuple[float | None, ...]:
        sample, labels = self.metrics.registry.get_sample_value, {"consumer": "cache"}
        names = ("consumed_changes", "consumer_failures", "poison_messages")
        return tuple(sample(f"pointsman_{name}_total", labels) for name in names)


async def test_changes_that_were_handled_are_counted_and_witnessed() -> None:
    counted = Counted()
    await counted.handle([make_change(4), make_change(9)])
    await counted.set_aside(POISON)

    assert counted.counts() == (2, 0, 1)
    assert counted.epochs.seen.revision == 9


async def test_a_failure_is_counted_as_that_and_nothing_is_witnessed() -> None:
    counted = Counted()
    counted.failure = CacheUnavailable()
    with pytest.raises(CacheUnavailable):
        await counted.handle([make_change(4)])
    with pytest.raises(CacheUnavailable):
        await counted.set_aside(POISON)

    assert counted.counts() == (0, 1, 0)
    assert counted.epochs.seen.revision == 1


@pytest.mark.parametrize(
    ("local_ttl", "seconds"), [(0.1, 0.25), (0.75, 0.25), (0.9, 0.3), (1.5, 0.5), (1.6, 0.5), (3600, 0.5)]
)
def test_the_feed_asks_thrice_in_the_life_of_a_local_entry_within_bounds(local_ttl: float, seconds: float) -> None:
    assert roles.poll_seconds(local_ttl) == pytest.approx(seconds)
