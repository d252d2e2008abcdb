"""The feed: every change, in the order of revisions and without a gap, in every server process.

Kafka makes it quick, the history makes it sure. Revisions are dense, so a gap shows by itself; it is filled from
``route_changes``, and while Kafka is silent or away the history alone feeds. What this process wrote itself it need
not be told. What a server knows is one number, the revision up to which it has seen everything.
"""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Sequence

from pointsman_server.domain.errors import RetryLater
from pointsman_server.domain.routes import Change
from pointsman_server.ports.broker import BrokerUnavailable, ChangeStream
from pointsman_server.ports.store import ChangeQuery, Clock, RouteStore

logger = logging.getLogger(__name__)

PAGE = 500
MOST_PENDING = 10_000


class Feed:
    """Hands every change to ``apply`` once, in order, then tells ``advance`` how far it is.

    ``confirm`` is told a moment, in monotonic seconds, at which the store had no change that was not applied.

    ``apply`` and ``advance`` run in one turn of the loop, so whoever reads in between sees a state as of one revision.
    ``start_over`` is called with the clock whenever the history does not continue: at the beginning, and when the
    epoch changed.
    """

    def __init__(
        self,
        history: RouteStore,
        stream: ChangeStream | None,
        *,
        start_over: Callable[[Clock], None],
        apply: Callable[[Change], None],
        advance: Callable[[int], None],
        confirm: Callable[[float], None] = lambda _moment: None,
        poll_seconds: float = 0.5,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        """``poll_seconds``: how long the history may go unasked, silent stream or not. No stream: history alone."""
        self._history = history
        self._stream = stream
        self._start_over = start_over
        self._apply = apply
        self._advance = advance
        self._confirm = confirm
        self._now = now
        self._asked_at = float("-inf")
        self._poll_seconds = poll_seconds
        self._pending: dict[int, Change] = {}
        # First to last revision of what was written here, and is not reached yet.
        self._written: dict[int, int] = {}
        self._epoch = ""
        self.revision = 0
        self.connected = False

    def on_clock(self, clock: Clock) -> None:
        """Take note of the clock of the store: another epoch is another history, and the next step begins anew."""
        if clock.epoch != self._epoch:
            self._epoch = ""

    def on_committed(self, clock: Clock, changes: int) -> None:
        """Take note that the last ``changes`` up to ``clock`` were made by this process, which has applied them."""
        if clock.epoch == self._epoch and clock.revision > self.revision and len(self._written) < MOST_PENDING:
            self._written[clock.revision - changes + 1] = clock.revision
            self._apply_ready()

    async def run(self) -> None:
        """Feed, for ever; cancel it to stop. Not even a bug ends it: caches go by their age meanwhile."""
        while True:
            try:
                await self.step()
            except RetryLater:
                await asyncio.sleep(self._poll_seconds)
            except Exception:
                logger.exception("the feed failed")
                await asyncio.sleep(self._poll_seconds)

    async def step(self) -> None:
        """Wait for changes and apply them. Raises StoreUnavailable and Overloaded."""
        if not self._epoch:
            await self._begin()
        self._hold(await self._receive())
        progress = self._apply_ready()
        if self._pending or not progress or self._now() - self._asked_at > self._poll_seconds / 2:
            await self._catch_up()

    async def _begin(self) -> None:
        clock = await self._history.clock()
        self._pending.clear()
        self._written.clear()
        self._epoch, self.revision = clock.epoch, clock.revision
        self._start_over(clock)

    async def _receive(self) -> Sequence[Change]:
        if self._stream is None:
            await asyncio.sleep(self._poll_seconds)
            return ()
        try:
            changes = await self._stream.receive(self._poll_seconds)
        except BrokerUnavailable as error:
            self._tell(connected=False, error=error)
            await asyncio.sleep(self._poll_seconds)
            return ()
        self._tell(connected=True)
        return changes

    def _hold(self, changes: Iterable[Change]) -> None:
        for change in changes:
            if change.epoch == self._epoch and change.revision > self.revision:
                self._pending[change.revision] = change
        if len(self._pending) > MOST_PENDING:
            self._pending.clear()  # the history has them

    def _apply_ready(self) -> bool:
        """Apply what continues the revision; says whether there was any."""
        before = self.revision
        while (after := self.revision + 1) in self._written or after in self._pending:
            if last := self._written.pop(after, 0):
                self.revision = last
            else:
                self._take(self._pending.pop(after))
        if self.revision > before:
            self._advance(self.revision)
        return self.revision > before

    async def _catch_up(self) -> None:
        epoch = self._epoch
        while True:
            asked_at = self._now()
            changes = await self._history.list_changes(ChangeQuery(after_revision=self.revision, limit=PAGE))
            if self._epoch != epoch:
                return  # it became another meanwhile, and what was read is of the one before
            if any(change.epoch != self._epoch for change in changes):
                self._epoch = ""  # another history: the next step begins anew
                return
            for change in changes:
                if change.revision > self.revision:
                    self._take(change)
            self._forget_reached()
            self._advance(self.revision)
            if len(changes) < PAGE:
                self._asked_at = asked_at
                self._confirm(asked_at)
                return

    def _forget_reached(self) -> None:
        self._pending = {number: change for number, change in self._pending.items() if number > self.revision}
        self._written = {first: last for first, last in self._written.items() if first > self.revision}

    def _take(self, change: Change) -> None:
        self._apply(change)
        self.revision = change.revision

    def _tell(self, *, connected: bool, error: Exception | None = None) -> None:
        # Once per outage: while it lasts, the metrics tell.
        if connected != self.connected:
            logger.log(logging.INFO if connected else logging.WARNING, "the feed %s", error or "is connected")
        self.connected = connected
