import queue
from collections.abc import Iterator
from typing import Any

import grpc
import pytest

from pointsman.errors import Unauthenticated
from pointsman.near_cache.statistics.counts import Counts
from pointsman.near_cache.table.selections import Entry
from pointsman.near_cache.table.table import Table
from pointsman.near_cache.table.view import Filter, View
from pointsman.near_cache.watch.follower import Events, Follower
from pointsman.near_cache.watch.protocol import Confirm, ProtocolViolation, Replace
from tests.support.waiting import eventually
from tests.support.watch_events import (
    Division,
    change,
    changes,
    checkpoint,
    end_of_snapshot,
    opened,
    reset,
    route,
    snapshot,
    token,
    traffic,
)

KEY = "team-a/payments/prod/v1"


class Lost(grpc.RpcError):
    """A stream that ends."""

    def code(self) -> grpc.StatusCode:
        return grpc.StatusCode.UNAVAILABLE

    def details(self) -> str:
        return "away"

    def trailing_metadata(self) -> None:
        return None


class Stream:
    """Brings what is put into it; an exception ends it."""

    def __init__(self) -> None:
        self.events: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def __iter__(self) -> Iterator[Any]:
        while True:
            event = self.events.get()
            if isinstance(event, Exception):
                raise event
            yield event

    def cancel(self) -> None:
        self.events.put(Lost())


class Service:
    """Keeps the requests; each stream is the next of ``streams``."""

    def __init__(self) -> None:
        self.generation = 0
        self.streams = [Stream() for _ in range(5)]
        self.requests: list[Any] = []
        self.reports: list[Any] = []
        self.refusals: list[Exception] = []

    def renew(self, generation: int) -> None:
        assert generation == self.generation
        self.generation += 1

    def metadata(self) -> tuple[tuple[str, str], ...]:
        if self.refusals:
            raise self.refusals.pop()
        return ()

    def watch(self, request: Any, metadata: Any) -> Stream:
        self.requests.append(request)
        return self.streams[len(self.requests) - 1]

    def report_progress(self, request: Any, metadata: Any) -> None:
        self.reports.append(request)


class Rig:
    def __init__(self) -> None:
        self.now = 1000.0
        self.view = View(Filter("team-a", "payments", "prod"))
        self.routes: dict[str, Entry] = {}
        self.steps: list[Any] = []
        self.ends: list[Exception | None] = []
        self.counts = Counts()
        self.service = Service()
        table = self.table = Table([self.view], 30.0, self.use, clock=lambda: self.now)
        events = Events(self.steps.append, self.ends.append)
        self.follower = Follower(self.view, table, "checkout", events, self.counts, clock=lambda: self.now)

    def use(self, routes: dict[str, Entry]) -> None:
        self.routes = routes

    def send(self, *events: Any, stream: int = 0) -> None:
        for event in events:
            self.service.streams[stream].events.put(event)


@pytest.fixture
def rig() -> Iterator[Rig]:
    rig = Rig()
    rig.follower.start(rig.service)
    yield rig
    rig.follower.stop()
    rig.follower.join(5)


def load(rig: Rig) -> None:
    rig.send(snapshot(5, [route(KEY, 5)]), end_of_snapshot(5, 1), checkpoint(5))
    assert eventually(lambda: rig.view.live)


def test_it_asks_for_its_filter_and_writes_what_comes(rig: Rig) -> None:
    load(rig)
    [request] = rig.service.requests
    assert (request.tenant, request.service, request.env) == ("team-a", "payments", "prod")
    assert (request.watcher.name, len(request.watcher.id)) == ("checkout", 32)
    assert request.traffic
    assert not request.HasField("resume")
    assert list(rig.routes) == [KEY]
    assert [type(step) for step in rig.steps] == [Replace, Confirm]
    rig.send(changes(6, [change(KEY, 6, None)]))
    assert eventually(lambda: len(rig.steps) == 3)
    assert (rig.routes, rig.view.revision) == ({}, 6)
    values = rig.counts.values()
    assert (values["snapshots"], values["changes"], values["streams"]) == (1, 1, 1)


def test_a_stream_that_ends_is_resumed_as_the_same_watcher(rig: Rig) -> None:
    load(rig)
    rig.send(Lost())
    assert eventually(lambda: len(rig.service.requests) == 2)
    first, second = rig.service.requests
    assert (second.resume, second.watcher.id) == (token(5), first.watcher.id)
    assert not rig.view.live
    assert str(rig.ends[0]) == "away (UNAVAILABLE)"
    rig.send(checkpoint(7), stream=1)
    assert eventually(lambda: rig.view.live)


def test_a_snapshot_that_is_refused_is_started_over(rig: Rig) -> None:
    rig.send(snapshot(5, [route(KEY, 5)]), end_of_snapshot(5, 2))
    assert eventually(lambda: len(rig.service.requests) == 2)
    assert isinstance(rig.ends[0], ProtocolViolation)
    assert not rig.view.loaded
    rig.send(snapshot(5, [route(KEY, 5)]), end_of_snapshot(5, 1), checkpoint(5), stream=1)
    assert eventually(lambda: rig.view.live)


def test_after_a_reset_it_is_not_live(rig: Rig) -> None:
    load(rig)
    rig.send(reset())
    assert eventually(lambda: not rig.view.live)
    assert list(rig.routes) == [KEY]


def test_progress_is_reported_once_it_is_applied(rig: Rig) -> None:
    load(rig)
    rig.send(checkpoint(7, report=True))
    assert eventually(lambda: rig.service.reports)
    [report] = rig.service.reports
    assert (report.applied, report.watcher_id) == (token(7), rig.service.requests[0].watcher.id)
    assert (report.tenant, report.service, report.env) == ("team-a", "payments", "prod")
    assert rig.view.revision == 7


def test_a_stream_that_is_silent_is_closed_and_goes_on_over_another_connection(rig: Rig) -> None:
    load(rig)
    rig.now += 14.9
    rig.follower.check_silence()
    assert not rig.ends
    rig.now += 0.1
    rig.follower.check_silence()
    assert eventually(lambda: len(rig.service.requests) == 2)
    assert (rig.service.generation, rig.service.requests[1].resume) == (1, token(5))


def test_what_forbids_a_stream_is_told(rig: Rig) -> None:
    load(rig)
    rig.service.refusals = [Unauthenticated("the token file is empty")]
    rig.send(Lost())
    assert eventually(lambda: len(rig.ends) == 2)
    assert isinstance(rig.ends[1], Unauthenticated)


def test_a_bug_does_not_end_it(rig: Rig) -> None:
    rig.send(object())
    assert eventually(lambda: len(rig.service.requests) == 2)
    assert isinstance(rig.ends[0], AttributeError)


def test_it_ends_when_it_is_stopped(rig: Rig) -> None:
    load(rig)
    rig.follower.stop()
    rig.follower.join(5)
    assert not rig.view.live
    assert rig.ends == []


def test_a_child_is_another_watcher(rig: Rig) -> None:
    load(rig)
    rig.follower.stop()
    rig.follower.join(5)
    rig.follower.take_new_id()
    rig.follower.start(rig.service)
    assert eventually(lambda: len(rig.service.requests) == 2)
    first, second = rig.service.requests
    assert first.watcher.id != second.watcher.id
    assert second.resume == token(5)


def test_traffic_is_known_or_not_with_the_server_of_the_stream(rig: Rig) -> None:
    """A server of an earlier release has routes alone; the next one has traffic again."""
    family = "team-a/payments/prod"
    divided = traffic(family, 5, Division((("v1", 10_000),)))
    whole = [
        opened(),
        snapshot(5, [route(KEY, 5)]),
        snapshot(5, [], traffic=[divided]),
        end_of_snapshot(5, 1, traffic_count=1),
        checkpoint(5),
    ]
    rig.send(*whole)
    assert eventually(lambda: rig.view.live)
    assert rig.view.has_traffic
    assert rig.table.family(rig.view, family)
    rig.send(Lost())
    rig.send(checkpoint(6), stream=1)
    assert eventually(lambda: rig.view.revision == 6)
    assert not rig.view.has_traffic
    assert set(rig.routes) == {KEY}
    rig.send(Lost(), stream=1)
    rig.send(opened(), stream=2)
    assert eventually(lambda: len(rig.service.requests) == 4)
    assert [each.HasField("resume") for each in rig.service.requests] == [False, True, True, False]
    rig.send(opened(), end_of_snapshot(7, 0), checkpoint(7), stream=3)
    assert eventually(lambda: rig.view.has_traffic)


def test_a_change_set_that_cannot_be_applied_is_not_missed(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    load(rig)
    apply = rig.table.apply
    monkeypatch.setattr(rig.table, "apply", lambda *_: 1 / 0)
    rig.send(changes(6, [change(KEY, 6, None)]))
    assert eventually(lambda: len(rig.service.requests) == 2)
    monkeypatch.setattr(rig.table, "apply", apply)
    assert not rig.service.requests[1].HasField("resume")
    assert isinstance(rig.ends[0], ZeroDivisionError)
    assert list(rig.routes) == [KEY]  # until the snapshot
    rig.send(end_of_snapshot(6, 0), checkpoint(6), stream=1)
    assert eventually(lambda: rig.routes == {})
