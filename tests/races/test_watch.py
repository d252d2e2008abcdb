"""Watch against the history: writes, streams that come and go, and what happens to them, in random order.

The parts of a server are real, on a store in memory; a ``Replica`` raises where its table is not that of the history as
of the revision that its stream says. All bounds are small, so that each is reached.
"""

import asyncio
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule, run_state_machine_as_test

from pointsman_server.domain.errors import (
    EpochChanged,
    Overloaded,
    PointsmanError,
    RevisionCompacted,
    RouteInTraffic,
)
from pointsman_server.domain.routes import Change, RouteKey
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.events.watch import change_set, encoding, history, snapshots, streams, watcher
from pointsman_server.events.watch.filters import Filter
from pointsman_server.events.watch.hub import LINGER_SECONDS, WatchHub
from pointsman_server.events.watch.recent import RecentChanges
from pointsman_server.events.watch.watcher import Watcher
from pointsman_server.ports.store import Clock, RouteQuery, Table, TrafficQuery
from pointsman_server.runtime import fair_share
from pointsman_server.writes.commit import Commit
from pointsman_server.writes.mutations import (
    Activate,
    Command,
    Create,
    Deactivate,
    Delete,
    DeleteTraffic,
    SetTraffic,
    Update,
)
from tests.support.fakes import MemoryStore
from tests.support.watches import INTENT, Replica, Violation, WatchServer, iterations, stopped

T = TypeVar("T")
RECENT, KEPT = 12, 30
SMALL: Sequence[tuple[Any, str, float]] = (
    (change_set, "ENCODED_IN_A_TURN", 2),
    (change_set, "PICKED_IN_A_TURN", 3),
    (encoding, "CHANGE_SET_BYTES", 900),
    (encoding, "SNAPSHOT_BYTES", 400),
    (history, "PAGE", 4),
    (fair_share, "WOKEN_IN_A_TURN", 1),
    (fair_share, "MOST_WRITING", 2),
    (fair_share, "UNBOUNDED", 2),
    (fair_share, "PATIENCE_SECONDS", 0),
    (snapshots, "PAGE", 3),
    (snapshots, "ENCODED_IN_A_TURN", 2),
    (streams, "ATTACHED_AT_ONCE", 3),
    (streams, "POLL_SECONDS", 0),
    (watcher, "MOST_EVENTS", 24),
)

KEYS = st.builds(RouteKey, *[st.sampled_from("ab")] * 3, st.sampled_from(["v1", "v2"]))
PARTS = st.sampled_from(["", "", "a", "b"])
FILTERS = st.builds(Filter, PARTS, PARTS, PARTS, st.booleans())
CUTS = st.sampled_from([0, 2_500, 10_000])


class Kafka:
    """A topic; ``waiting`` has the changes that it has not delivered."""

    def __init__(self) -> None:
        self.waiting: list[Change] = []
        self.deliver = 0

    async def receive(self, _seconds: float) -> Sequence[Change]:
        await asyncio.sleep(0)
        count, self.deliver = self.deliver, 0
        delivered, self.waiting = self.waiting[:count], self.waiting[count:]
        return delivered

    async def close(self) -> None:
        return


@dataclass
class Client:
    """A replica with its stream, if it has one."""

    replica: Replica
    stream: asyncio.Task[None] | None = None


class Machine(RuleBasedStateMachine):
    """One server, a few clients."""

    def __init__(self) -> None:
        super().__init__()
        self.patch = pytest.MonkeyPatch()
        for module, name, value in SMALL:
            self.patch.setattr(module, name, value)
        self.loop = asyncio.new_event_loop()
        self.clients: list[Client] = []
        self.urls = 0
        self.published = 0
        self.epochs = 0
        self.kafka = Kafka()
        self.server = WatchServer(self.kafka, recent=RECENT, changes=KEPT)
        self.run(self.server.start())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    def teardown(self) -> None:
        try:
            self.end_well()
        finally:
            for client in self.clients:
                if client.stream:
                    client.replica.gate.open()
                    self.run(stopped(client.stream))
            self.run(self.server.stop())
            self.run(self.end_tasks())
            self.loop.close()
            self.patch.undo()

    async def end_tasks(self) -> None:
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def end_well(self) -> None:
        """Whatever happened: once clients read and watch again, each has everything."""
        for client in self.clients:
            client.replica.gate.open()
        for _ in range(100):
            self.run(iterations(50))
            for client in self.clients:
                self.reopen(client)
            self.run(self.server.beats())
            if all(client.replica.position == self.server.eras.now for client in self.clients):
                break
        for client in self.clients:
            assert client.replica.position == self.server.eras.now
            assert client.replica.table == self.server.eras.table(client.replica.position, client.replica.filter)

    def reopen(self, client: Client) -> None:
        if client.stream is None or client.stream.done():
            void = client.stream is not None and isinstance(self.ended(client), EpochChanged | RevisionCompacted)
            client.stream = self.run(self.open(client.replica, anew=void))

    async def open(self, replica: Replica, *, anew: bool) -> asyncio.Task[None]:
        return self.server.watch(replica, anew=anew)

    def ended(self, client: Client) -> BaseException | None:
        assert client.stream
        error = client.stream.exception()
        assert error is None or isinstance(error, PointsmanError), repr(error)
        return error

    # Writes

    def url(self) -> str:
        self.urls += 1
        return f"https://n{self.urls}.internal"

    async def mutate(self, key: RouteKey, *, delete: bool = False) -> None:
        committer, routes = self.server.committer, self.server.store.routes
        if key not in routes:
            await committer.create(Create(key, self.url(), {}, active=False), INTENT)
        elif delete:
            with suppress(RouteInTraffic):
                await committer.delete(Delete(key), INTENT)
        else:
            await committer.update(Update(key, self.url()), INTENT)

    @rule(key=KEYS, delete=st.booleans())
    def write(self, key: RouteKey, delete: bool) -> None:
        self.run(self.mutate(key, delete=delete))

    @rule(key=KEYS)
    def activate_alone(self, key: RouteKey) -> None:
        if key in self.server.store.routes:
            self.run(self.server.committer.activate(Activate(key, exclusive=True), INTENT))

    @rule(key=KEYS)
    def deactivate(self, key: RouteKey) -> None:
        if key in self.server.store.routes:
            self.run(self.server.committer.deactivate(Deactivate(key), INTENT))

    @rule(key=KEYS, cut=CUTS)
    def divide(self, key: RouteKey, cut: int) -> None:
        """Make both versions, or change their URLs, and divide the calls between them: one change set."""
        routes = self.server.store.routes
        versions = [key._replace(version=version) for version in ("v1", "v2")]
        commands: list[Command] = [
            Update(each, self.url()) if each in routes else Create(each, self.url(), {}) for each in versions
        ]
        targets = (Target("v1", cut), Target("v2", 10_000 - cut))
        commands.append(SetTraffic(key.family_key, Division(targets, ("v1",))))
        self.run(self.server.committer.commit(Commit(commands), INTENT))

    @rule(key=KEYS, cut=CUTS)
    def move_traffic(self, key: RouteKey, cut: int) -> None:
        if key.family_key in self.server.store.traffic:
            division = Division((Target("v1", cut), Target("v2", 10_000 - cut)))
            self.run(self.server.committer.set_traffic(SetTraffic(key.family_key, division), INTENT))

    @rule(key=KEYS)
    def undivide(self, key: RouteKey) -> None:
        """Remove the traffic and a version together."""
        if key.family_key in self.server.store.traffic and key in self.server.store.routes:
            commands = [DeleteTraffic(key.family_key), Delete(key)]
            self.run(self.server.committer.commit(Commit(commands), INTENT))

    @rule(tenant=st.sampled_from("ab"), count=st.integers(2, 16))
    def import_many(self, tenant: str, count: int) -> None:
        keys = [RouteKey(tenant, "ab"[number % 2], "ab"[number // 2 % 2], f"i{number}") for number in range(count)]
        self.run(self.server.import_(keys, self.url()))

    @rule(keys=st.lists(KEYS, max_size=6))
    def writes_together(self, keys: list[RouteKey]) -> None:
        async def all_of_them() -> None:
            await asyncio.gather(*(self.mutate(key) for key in set(keys)))

        self.run(all_of_them())

    @rule(key=KEYS)
    def another_server_writes(self, key: RouteKey) -> None:
        """This one reads it from Kafka, or from the history."""
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr(self.server.committer, "_on_committed", lambda _changes: None)
            self.run(self.mutate(key))

    @rule(count=st.integers(1, 5))
    def kafka_delivers(self, count: int) -> None:
        """A few changes: a change set may arrive in parts."""
        changes = self.server.store.changes
        new = [change for change in changes if change.revision > self.published]
        self.published = max(self.published, self.server.store.revision)
        self.kafka.waiting += new
        self.kafka.deliver += count

    # Clients

    @precondition(lambda self: len(self.clients) < 6)
    @rule(wanted=FILTERS)
    def begin(self, wanted: Filter) -> None:
        client = Client(Replica(self.server.eras, wanted))
        self.clients.append(client)
        self.reopen(client)

    def client(self, data: st.DataObject) -> Client | None:
        return data.draw(st.sampled_from(self.clients)) if self.clients else None

    @rule(data=st.data())
    def go_away(self, data: st.DataObject) -> None:
        client = self.client(data)
        if client and client.stream and not client.stream.done():
            client.replica.gate.open()
            self.run(stopped(client.stream))
            client.stream = None

    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        client = self.client(data)
        if client:
            self.reopen(client)

    @rule(data=st.data())
    def read_nothing(self, data: st.DataObject) -> None:
        client = self.client(data)
        if client:
            client.replica.gate.close()

    @rule(data=st.data())
    def read_again(self, data: st.DataObject) -> None:
        client = self.client(data)
        if client:
            client.replica.gate.open()

    # The server

    @rule(count=st.integers(1, 40))
    def pass_iterations(self, count: int) -> None:
        self.run(iterations(count))

    @rule()
    def beat(self) -> None:
        self.loop.create_task(self.server.beats())

    @rule()
    def feed_starts_over(self) -> None:
        self.server.feed.on_clock(Clock("", 0))

    @rule()
    def hub_fails(self) -> None:
        """At its next change set, so it starts over beyond it."""

        def fail(_changes: Sequence[Change]) -> None:
            del self.server.hub.apply
            raise RuntimeError("a bug")

        self.server.hub.apply = fail  # type: ignore[method-assign]

    @rule(back=st.integers(0, 20))
    def restore(self, back: int) -> None:
        """Restore the database to an older state, between two change sets, as another epoch."""
        store, eras = self.server.store, self.server.eras
        eras.changes(store.epoch)
        kept = list(store.changes[: max(0, len(store.changes) - back)])
        while kept and not kept[-1].ends_set:
            kept.pop()
        self.epochs += 1
        store.epoch = f"epoch-{self.epochs}"
        store.changes = kept
        store.revision = len(kept)
        store.routes, store.traffic = {}, {}
        for change in store.changes:
            self.apply_again(change)
        self.published = min(self.published, store.revision)
        self.kafka.waiting.clear()
        self.server.feed.on_clock(Clock(store.epoch, store.revision))

    def apply_again(self, change: Change) -> None:
        store = self.server.store
        if change.after:
            store.routes[change.key] = change.after
        elif change.traffic_after:
            store.traffic[change.key] = change.traffic_after
        else:
            del (store.traffic if change.kind.of_traffic else store.routes)[change.key]

    @rule(seconds=st.sampled_from([1.0, snapshots.KEPT_SECONDS, LINGER_SECONDS + 1]))
    def time_passes(self, seconds: float) -> None:
        self.server.now.advance(seconds)

    @invariant()
    def streams_end_only_by_a_status(self) -> None:
        for client in self.clients:
            if client.stream and client.stream.done():
                error = self.ended(client)
                assert isinstance(error, Overloaded | EpochChanged | RevisionCompacted), repr(error)


TestMachine = Machine.TestCase
TestMachine.settings = settings(
    max_examples=40, stateful_step_count=40, deadline=None, suppress_health_check=list(HealthCheck)
)


# Without shrinking: it is enough that something is found, mostly by the first hundred examples.
OFF = settings(
    max_examples=5_000,
    deadline=None,
    database=None,
    phases=[Phase.generate],
    suppress_health_check=list(HealthCheck),
)


class TestRemediesOff:
    """The machine finds what each remedy prevents."""

    def fails(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = (Violation, AssertionError, ExceptionGroup)
        with pytest.raises(found):
            run_state_machine_as_test(Machine, settings=OFF)

    def test_changes_put_without_looking_at_the_revision(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Watcher, "put_changes", lambda self, events, _revision: self._put(events))
        self.fails(monkeypatch)

    def test_traffic_for_those_that_did_not_ask(self, monkeypatch: pytest.MonkeyPatch) -> None:
        matches = Filter.matches
        monkeypatch.setattr(Filter, "matches", lambda self, key: matches(self._replace(traffic=True), key))
        self.fails(monkeypatch)

    def test_traffic_that_is_read_after_the_routes_of_a_snapshot(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """Of another moment than they are."""

        @asynccontextmanager
        async def apart(self: MemoryStore, query: RouteQuery) -> AsyncIterator[Table]:
            async with scan(self, query) as table:
                await iterations(20)
                of_routes = TrafficQuery(query.tenant, query.service, query.env, limit=1_000)
                yield replace(table, traffic=await self.list_traffic(of_routes))

        scan = MemoryStore.scan
        monkeypatch.setattr(MemoryStore, "scan", apart)
        self.fails(monkeypatch)

    def test_sets_that_are_not_kept_in_memory_before_they_are_handed_over(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        def moved(self: RecentChanges, changes: Any) -> None:
            self.revision = changes.clock.revision

        monkeypatch.setattr(RecentChanges, "append", moved)
        self.fails(monkeypatch)

    def test_parts_of_a_set_handed_over_as_they_come(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(Change, "ends_set", property(lambda _change: True))
        self.fails(monkeypatch)

    def test_a_start_of_the_feed_that_interrupts_nobody(self, monkeypatch: pytest.MonkeyPatch) -> None:
        def carry_on(self: WatchHub, clock: Clock) -> None:
            if not self.epoch:
                self._forget(clock)

        monkeypatch.setattr(WatchHub, "start_over", carry_on)
        self.fails(monkeypatch)
