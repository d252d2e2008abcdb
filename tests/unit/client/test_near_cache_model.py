"""Snapshots, changes, resuming, compaction, resets and other epochs in random order, against a plain dict.

Selects are compared with the plain implementation of the rule that made the test vectors.
"""

from collections import deque
from collections.abc import Mapping
from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from pointsman.errors import InvalidArgument
from pointsman.keys import FamilyKey, RouteKey
from pointsman.near_cache.table.entries import Behind, CachedResolution, InactiveRoute, Known, entry_of
from pointsman.near_cache.table.fast_path import fast_path
from pointsman.near_cache.table.selections import Entry
from pointsman.near_cache.table.table import Table
from pointsman.near_cache.table.view import Filter, View
from pointsman.near_cache.watch.protocol import Apply, Confirm, Position, ProtocolViolation, Replace, WatchProtocol
from pointsman.v1.watch_pb2 import WatchResponse
from tests.support import selection_vectors
from tests.support.watch_events import (
    Division,
    RefusedResume,
    State,
    TrafficState,
    WatchServer,
    Write,
    checkpoint,
    opened,
    reset,
    token,
)

TENANT, OTHER = "team-a", "team-b"
KEYS = [f"{tenant}/payments/prod/v{number}" for tenant in (TENANT, OTHER) for number in range(4)]
MINE = [key for key in KEYS if key.startswith(TENANT)]
FAMILIES = [f"{tenant}/payments/prod" for tenant in (TENANT, OTHER)]
FAMILY = FAMILIES[0]
VERSIONS = [f"v{number}" for number in range(4)]
DIVISIONS = st.builds(
    lambda versions, cut, fallbacks: Division(
        ((versions[0], cut), (versions[1], 10_000 - cut)), tuple(version for version in fallbacks)
    ),
    st.permutations(VERSIONS),
    st.sampled_from([0, 1, 2_500, 9_999, 10_000]),
    st.lists(st.sampled_from(VERSIONS), max_size=2, unique=True),
)
WRITES = st.lists(
    st.one_of(
        st.tuples(
            st.sampled_from(KEYS),
            st.sampled_from([None, "https://one.internal", "https://two.internal"]),
            st.booleans(),
        ),
        st.tuples(st.sampled_from(FAMILIES), st.one_of(st.none(), DIVISIONS), st.just(True)),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda write: write[0],
)
SIZES = st.integers(1, 3)
MAX_STALE = 30.0


class NearCacheModel(RuleBasedStateMachine):
    """``table`` follows ``server`` over a stream, whose events wait in ``events``."""

    @initialize(selecting=st.booleans())
    def begin(self, selecting: bool) -> None:
        self.now = 1000.0
        self.selecting = selecting  # whether somebody selects all the time
        self.server = WatchServer(TENANT)
        self.view = View(Filter(TENANT))
        self.routes: dict[str, Entry] = {}
        self.fast = fast_path(lambda _: None, lambda _, __: None, lambda _: 1_000_000, clock=lambda: self.now)
        self.table = Table([self.view], MAX_STALE, self.use, clock=lambda: self.now)
        self.protocol: WatchProtocol[tuple[str, Known]] = WatchProtocol(
            lambda route: entry_of(self.view, route), needs_traffic=True
        )
        self.with_traffic = True  # whether the server of the stream knows traffic
        self.events: deque[WatchResponse] | None = None
        self.sent = token(0)  # what the server has put into the stream
        self.seen: dict[str, tuple[str, int]] = {}  # what the client has seen of each key elsewhere: epoch and revision
        self.shown: dict[str, tuple[str, int]] = {}

    def use(self, routes: dict[str, Entry]) -> None:
        self.routes = routes
        self.fast.use(routes)

    # The store

    @rule(writes=WRITES)
    def write(self, writes: list[Write]) -> None:
        self.server.write(writes)

    @rule()
    def compact(self) -> None:
        self.server.compact()

    @rule(back=st.integers(0, 3))
    def restore(self, back: int) -> None:
        self.server.restore(back)

    # The stream

    @precondition(lambda self: self.events is None)
    @rule(size=SIZES, with_traffic=st.sampled_from([True, True, True, False]))
    def open(self, size: int, with_traffic: bool) -> None:
        self.with_traffic = with_traffic
        resume = self.protocol.resume
        try:
            if resume is not None:
                self.server.check(resume)
        except RefusedResume as refused:
            self.protocol.opened(self.now)
            self.end(str(refused))
            assert self.protocol.resume is None
            return
        self.protocol.opened(self.now)
        self.events = deque([opened()] if with_traffic else [])
        if resume is None:
            self.events += self.server.snapshot(size, with_traffic=with_traffic)
            self.sent = token(self.server.revision, self.server.epoch)
        else:
            self.sent = resume
        self.send(size)

    @precondition(lambda self: self.events is not None)
    @rule(size=SIZES)
    def send(self, size: int) -> None:
        """Put what is new into the stream; a reset where the server cannot go on."""
        assert self.events is not None
        if not self.server.covers(self.sent):
            self.events.append(reset())
            self.events += self.server.snapshot(size, with_traffic=self.with_traffic)
        else:
            self.events += self.server.after(self.sent.revision, size, with_traffic=self.with_traffic)
        self.sent = token(self.server.revision, self.server.epoch)
        self.events.append(checkpoint(self.server.revision, self.server.epoch, server_time=self.now))

    @precondition(lambda self: self.events)
    @rule(count=st.integers(1, 8))
    def receive(self, count: int) -> None:
        for _ in range(count):
            if self.events:
                try:
                    self.take(self.events.popleft())
                except ProtocolViolation as violation:
                    assert "late" in str(violation) or "a snapshot is needed" in str(violation)
                    self.end("")
                self.check()

    @precondition(lambda self: self.events is not None)
    @rule()
    def cut(self) -> None:
        self.end("")

    @precondition(lambda self: self.events and any(each.HasField("snapshot") for each in self.events))
    @rule(data=st.data())
    def lose_a_batch(self, data: st.DataObject) -> None:
        """The stream loses a part of a snapshot: the whole must be refused."""
        assert self.events is not None
        batches = [number for number, each in enumerate(self.events) if each.HasField("snapshot")]
        del self.events[data.draw(st.sampled_from(batches))]
        while self.events:
            try:
                self.take(self.events.popleft())
            except ProtocolViolation:
                self.end("")
                return
        raise AssertionError("a torn snapshot was taken")

    @rule(seconds=st.sampled_from([0.5, 5.0, 60.0]))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    # The client

    @rule(key=st.sampled_from(MINE))
    def see(self, key: str) -> None:
        """A server answers the client about a key, as of now."""
        state = self.server.routes.get(key)
        at = state.revision if state else self.server.revision
        self.seen[key] = (self.server.epoch, at)
        self.table.saw(RouteKey.parse(key), at, self.server.epoch)

    @rule()
    def see_the_family(self) -> None:
        """A server answers a select of the client, as of now, or the client sets traffic."""
        self.seen[FAMILY] = (self.server.epoch, self.server.revision)
        self.table.saw(FamilyKey.parse(FAMILY), self.server.revision, self.server.epoch)

    @rule(sticky_key=st.sampled_from(["user-1", "user-2", "user-3", "user-17"]))
    def select(self, sticky_key: str) -> None:
        """What the fast path does not answer is asked of the table, as a near-cache does."""
        if not self.view.usable:
            return
        entry = self.table.family(self.view, FAMILY)
        if entry is None:
            assert not self.view.has_traffic or isinstance(self.routes.get(FAMILY), Behind)
            return
        chosen = entry.choose(sticky_key.encode())
        expected = self.expected(sticky_key)
        assert (chosen.choice.version if chosen else None) == expected.get("version")
        self.check_select(sticky_key)

    def take(self, event: WatchResponse) -> None:
        step = self.protocol.received(event, self.now)
        if step is not None and self.view.has_traffic and not self.protocol.has_traffic:
            self.table.drop_traffic(self.view)
        if isinstance(step, Replace):
            self.table.replace(self.view, step.as_of, step.routes, step.traffic)
            # A snapshot of another epoch is the truth: revisions of the two cannot be compared.
            self.seen = {key: seen for key, seen in self.seen.items() if seen[0] == step.as_of.epoch}
        elif isinstance(step, Apply):
            self.table.apply(self.view, step.as_of, step.changes)
        elif isinstance(step, Confirm):
            self.table.confirm(self.view, step.as_of, step.age)

    def end(self, reason: str) -> None:
        error = InvalidArgument("ended", reason=reason) if reason else None
        assert self.protocol.ended(error, self.now) < MAX_STALE
        self.events = None

    # What must hold

    @invariant()
    def check(self) -> None:
        if not self.view.loaded:
            return
        assert self.view.position == self.protocol.position
        content = {key: shown(entry) for key, entry in self.routes.items()}
        present = {key: state for key, state in content.items() if state is not None}
        assert present == {key: state for key, state in self.states.items() if isinstance(state, State)}
        assert self.view.size == len(present)
        for key in MINE:
            self.check_key(key)
        if self.selecting and self.view.usable:
            self.table.family(self.view, FAMILY)
        for sticky_key in ("user-1", "user-3"):
            self.check_select(sticky_key)

    @property
    def states(self) -> Mapping[str, State | TrafficState]:
        """What the server had at the position of the table."""
        return self.server.states[self.view.epoch, self.view.revision]

    def expected(self, sticky_key: str) -> dict[str, Any]:
        """Return what the rule chooses, as of the position of the table."""
        states = self.states
        active = [key.rpartition("/")[2] for key, state in states.items() if isinstance(state, State) and state.active]
        divided = states.get(FAMILY)
        traffic = None
        if isinstance(divided, TrafficState):
            weights = divided.division.weights
            traffic = {
                "targets": [{"version": version, "weight": weight} for version, weight in weights],
                "slices": [{"version": version, "size": weight} for version, weight in weights if weight],
                "fallbacks": divided.division.fallbacks,
            }
        return selection_vectors.choose({"family": FAMILY, "traffic": traffic, "active": active}, sticky_key)

    def check_select(self, sticky_key: str) -> None:
        """Readers are given what the rule chooses as of the position of the table: routes and traffic of one moment."""
        found = self.fast.select(FAMILY, sticky_key)
        if found is None:
            return
        assert self.view.has_traffic
        expected = self.expected(sticky_key)
        choice = found.choice
        assert expected == {
            "version": choice.version,
            "rule": choice.rule.name,
            "inactive_versions": list(choice.inactive_versions),
        }
        state = self.states[found.key_text]
        assert isinstance(state, State)
        assert (found.url, found.revision) == (state.url, state.revision)
        for key in (FAMILY, *MINE):
            epoch, revision = self.seen.get(key, ("", 0))
            if epoch == self.view.epoch:
                assert self.view.revision >= revision
            else:
                assert not epoch or epoch in self.view.left

    def check_key(self, key: str) -> None:
        """What readers are given is not older than what they or the client have seen."""
        entry = self.routes.get(key)
        if isinstance(entry, Behind):
            assert self.fast.resolve(key) is None
            return
        at = entry.revision if isinstance(entry, Known) else self.view.revision
        for epoch, revision in filter(None, (self.seen.get(key), self.shown.get(key))):
            if epoch == self.view.epoch:
                assert max(at, self.view.revision) >= revision
            else:
                assert epoch in self.view.left or self.fast.resolve(key) is None
        found = self.fast.resolve(key)
        if found is not None:
            self.shown[key] = (self.view.epoch, found.revision)

    def teardown(self) -> None:
        """Whatever happened, the table heals."""
        if not hasattr(self, "server"):
            return
        if self.events is not None and not self.with_traffic:
            self.end("")
        for _ in range(5):
            self.heal()
        assert self.protocol.live
        assert self.view.has_traffic
        self.check()
        assert self.view.position == Position(self.server.epoch, self.server.revision)
        for key in MINE:
            found = self.fast.resolve(key)
            state = self.server.routes.get(key)
            assert not isinstance(state, TrafficState)
            assert (found and found.url) == (state.url if state and state.active else None)
        for sticky_key in ("user-1", "user-2"):
            self.select(sticky_key)
            found = self.fast.select(FAMILY, sticky_key)
            assert (found and found.choice.version) == self.expected(sticky_key).get("version")

    def heal(self) -> None:
        self.now += 120.0
        if self.events is None:
            self.open(2, with_traffic=True)
        if self.events is not None:
            self.send(2)
        while self.events:
            try:
                self.take(self.events.popleft())
            except ProtocolViolation:
                self.end("")


def shown(entry: Entry) -> State | None:
    current = entry.entry if isinstance(entry, Behind) else entry
    if isinstance(current, CachedResolution | InactiveRoute):
        _, url, revision, _, active = current.stored
        return State(url, active, revision)
    return None


TestNearCacheModel = NearCacheModel.TestCase
TestNearCacheModel.settings = settings(
    max_examples=250, stateful_step_count=40, deadline=None, report_multiple_bugs=False
)
