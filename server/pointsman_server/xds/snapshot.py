"""Resources of the table: built once for all clients of a view, and again only where a change may have changed them."""

import asyncio
import logging
from collections.abc import Callable, Collection, Hashable, Iterable, Sequence
from itertools import chain, count
from typing import Any, Protocol, TypeVar

from pointsman_server.domain.routes import Change
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import FairShare, Pacing, Window
from pointsman_server.xds.names import root_of
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import Resource
from pointsman_server.xds.resources.build import build
from pointsman_server.xds.table import Table
from pointsman_server.xds.targets import FORBIDDEN, Target
from pointsman_server.xds.views import View

logger = logging.getLogger(__name__)

T = TypeVar("T")

# Roots that are compared in a turn: about half a millisecond.
COMPARED_IN_A_TURN = 50
# Fewer than of watches: a stream writes up to four responses, and its client answers each. Two that write at a time are
# enough for the event loop not to wait for the threads of grpcio.
WOKEN_IN_A_TURN = 1
MOST_WRITING = 2
# A call takes several ways through the event loop, each behind what streams do there: so it gets some time alone.
PAUSE_AFTER = 30
# What is built of a root is kept for so many views, about: clients choose views and suffixes of names, without end.
KEPT_VIEWS = 16
# Changes that are kept for subscribers that do not take their news, because their clients do not read.
MOST_LOGGED = 1_000


class Subscriber(Protocol):
    """A stream that wants to know of changes."""

    def wake(self, window: Window) -> None:
        """Take ``news``, soon and in a task of its own; until what that leads to is written, count in ``window``."""


class Follower(Protocol):
    """A subscriber that selects roots by a rule, not by name."""

    def update(self, roots: Collection[str]) -> Iterable[Subscriber]:
        """Note that ``roots`` may have changed. Returns who is to be woken."""

    def replace(self) -> Iterable[Subscriber]:
        """Note that anything may have changed. Returns who is to be woken."""


class _Watched:
    """What is known of a root that somebody watches."""

    __slots__ = ("built", "subscribers", "target")

    def __init__(self, target: Target) -> None:
        self.target = target
        self.built: dict[Hashable, Any] = {}
        self.subscribers: dict[Subscriber, None] = {}

    def leads_to(self, target: Target) -> bool:
        """Note where the root leads now. Returns whether that is elsewhere."""
        before, self.target = self.target, target
        if target == before:
            return False
        self.built.clear()
        return True

    def keep(self, key: Hashable, built: T) -> T:
        """Keep what was built, until the root leads elsewhere or there is too much of it."""
        target = self.target
        # Of each slot and fallback some clusters and their endpoints.
        if len(self.built) >= KEPT_VIEWS * (8 + 4 * (len(target.slots) + len(target.fallbacks))):
            self.built.clear()
        self.built[key] = built
        return built


class ResourceSnapshot:
    """What is served now.

    Invariants:

    - A resource depends on its view, type and name, and on what its root leads to in the table; so equal tables have
      equal resources, with equal versions, on every server.
    - A change set is applied whole, and is news for every subscriber that it concerns, in one step. So one that takes
      its news before it reads resources has sets whole.
    - ``run`` wakes subscribers, a few at a time; they work in tasks of their own: one that fails hurts no other.
    - What is kept for a subscriber that does not take its news is bounded.
    - Only what subscribers watch is kept.
    """

    def __init__(self, table: Table, fair_share: FairShare | None = None) -> None:
        self._table = table
        self._fair_share = fair_share or FairShare()
        self._pacing = Pacing(
            self._fair_share, in_a_turn=WOKEN_IN_A_TURN, writing=MOST_WRITING, pause_after=PAUSE_AFTER
        )
        self._watched: dict[str, _Watched] = {}
        self._followers: dict[Follower, None] = {}
        # What changed, by numbers that increase, as long as it is news for somebody.
        self._log: dict[int, Collection[str]] = {}
        self._numbers = count(1)
        # Who has news, each from a number of the log on, and the first from the lowest; and which of them to wake.
        self._news: dict[Subscriber, int] = {}
        self._to_wake: dict[Subscriber, None] = {}
        self._merged: tuple[int, int, Collection[str]] = (0, 0, ())
        self._work = asyncio.Event()
        # Set, and replaced, with each change.
        self._advanced = asyncio.Event()

    @property
    def clock(self) -> Clock:
        """The revision that every resource is true as of."""
        return self._table.clock

    @property
    def table(self) -> Table:
        """The table that is served; another one after a reload."""
        return self._table

    async def reached(self, clock: Clock) -> None:
        """Wait until what is served is not before ``clock``."""
        while self.clock.is_before(clock):
            await self._advanced.wait()

    @property
    def name_count(self) -> int:
        """How many roots somebody watches."""
        return len(self._watched)

    def resource(self, view: View, kind: ResourceType, name: str, *, forbidden: bool = False) -> Resource:
        """Return the resource called ``name``; it is never missing."""

        root = root_of(name)
        watched = self._watched.get(root)
        if watched is None:
            return build(view, kind, name, FORBIDDEN if forbidden else self._table.target(root))
        key = (kind, name, view, forbidden)
        found: Resource | None = watched.built.get(key)
        if found is None:
            found = watched.keep(key, build(view, kind, name, FORBIDDEN if forbidden else watched.target))
        return found

    def built(self, root: str, key: Hashable, make: Callable[[Target], T]) -> T:
        """Return what ``make`` makes of the target of ``root``, kept under ``key`` while somebody watches the root."""
        watched = self._watched.get(root)
        if watched is None:
            return make(self._table.target(root))
        found: T | None = watched.built.get(key)
        if found is None:
            found = watched.keep(key, make(watched.target))
        return found

    def target(self, root: str) -> Target:
        """Return what ``root`` leads to."""
        watched = self._watched.get(root)
        return self._table.target(root) if watched is None else watched.target

    def subscribe(self, root: str, subscriber: Subscriber) -> None:
        """Tell ``subscriber`` of changes of ``root`` from now on."""
        watched = self._watched.get(root)
        if watched is None:
            watched = self._watched[root] = _Watched(self._table.target(root))
        watched.subscribers[subscriber] = None

    def unsubscribe(self, root: str, subscriber: Subscriber) -> None:
        """Stop telling it of changes of ``root``."""
        watched = self._watched.get(root)
        if watched is None:
            return
        watched.subscribers.pop(subscriber, None)
        if not watched.subscribers:
            del self._watched[root]

    def leave(self, subscriber: Subscriber) -> None:
        """Drop its news: its stream has ended."""
        self._news.pop(subscriber, None)
        self._trim()

    def has_news(self, subscriber: Subscriber) -> bool:
        """Return whether something changed that it has not taken; else it knows of everything up to ``clock``."""
        return subscriber in self._news

    def news(self, subscriber: Subscriber) -> Collection[str] | None:
        """Take the roots that have changed since the last call, not only those that it watches; None: it may be any."""
        since = self._news.pop(subscriber, None)
        if since is None:
            return ()
        roots = self._since(since)
        self._trim()
        return roots

    async def turn(self) -> None:
        """Wait for a turn among the work on this snapshot: ``FairShare.take``."""
        await self._fair_share.take()

    def follow(self, follower: Follower) -> None:
        """Call ``follower`` with each change from now on."""
        self._followers[follower] = None

    def unfollow(self, follower: Follower) -> None:
        """Stop calling it."""
        self._followers.pop(follower, None)

    def apply(self, changes: Sequence[Change]) -> None:
        """Apply change sets. They are news for those who watch what they changed."""
        roots = self._table.apply(changes)
        concerned: dict[Subscriber, None] = {}
        for root in roots:
            watched = self._watched.get(root)
            if watched is not None and watched.leads_to(self._table.target(root)):
                concerned.update(watched.subscribers)
        for follower in self._followers:
            concerned.update(dict.fromkeys(follower.update(roots)))
        self._note(roots, concerned)

    async def compare(self, table: Table) -> dict[str, Target | None]:
        """Return what every root that is watched leads to in ``table``, or None where that is the same as now.

        It takes turns with other work. Nothing is applied meanwhile.
        """
        compared: dict[str, Target | None] = {}
        watched = list(self._watched.items())
        for start in range(0, len(watched), COMPARED_IN_A_TURN):
            await self._fair_share.take()
            for root, one in watched[start : start + COMPARED_IN_A_TURN]:
                target = table.target(root)
                compared[root] = None if target == one.target else target
        return compared

    def replace(self, table: Table, compared: dict[str, Target | None] | None = None) -> None:
        """Serve another table, and tell those who watch what is different there.

        ``compared``: the result of ``compare``, without what the table received since.
        """
        self._table = table
        roots: dict[str, None] = {}
        concerned: dict[Subscriber, None] = {}
        known = compared or {}
        for root, watched in self._watched.items():
            target = known[root] if root in known else table.target(root)
            if target is not None and watched.leads_to(target):
                roots[root] = None
                concerned.update(watched.subscribers)
        for follower in self._followers:
            concerned.update(dict.fromkeys(follower.replace()))
        self._note(roots, concerned)

    async def run(self) -> None:
        """Wake those who have news, until cancelled."""
        while True:
            await self._work.wait()
            await self.step()

    async def step(self) -> None:
        """Wake those who have news now."""
        self._work.clear()
        to_wake, self._to_wake = list(self._to_wake), {}
        await self._pacing.wake(to_wake, self._wake)

    def _wake(self, subscriber: Subscriber, window: Window) -> None:
        if subscriber not in self._news:
            return  # it has taken them, or left
        try:
            subscriber.wake(window)
        except Exception:
            logger.exception("a stream could not be woken")

    def _note(self, roots: Collection[str], concerned: Iterable[Subscriber]) -> None:
        number = next(self._numbers)
        for subscriber in concerned:
            self._log[number] = roots
            if subscriber not in self._news:
                self._news[subscriber] = number
                self._to_wake[subscriber] = None
        if len(self._log) > MOST_LOGGED:
            del self._log[next(iter(self._log))]
        self._work.set()
        self._advanced.set()
        self._advanced = asyncio.Event()

    def _since(self, number: int) -> Collection[str] | None:
        first, last = next(iter(self._log)), next(reversed(self._log))
        if number < first:
            return None
        if self._merged[:2] != (number, last):
            # Those who are woken together have the same news.
            since = (roots for each, roots in self._log.items() if each >= number)
            self._merged = (number, last, frozenset(chain.from_iterable(since)))
        return self._merged[2]

    def _trim(self) -> None:
        first = next(iter(self._news.values()), None)
        if first is None:
            self._log.clear()
            return
        while (number := next(iter(self._log))) < first:
            del self._log[number]
