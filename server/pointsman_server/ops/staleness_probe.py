"""Measures staleness: a heartbeat route that changes periodically, and when each layer shows each change."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping

from pointsman_server.domain.errors import PointsmanError, RetryLater
from pointsman_server.domain.routes import HEARTBEAT, RouteKey, Snapshot
from pointsman_server.ports.store import Intent
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Update

logger = logging.getLogger(__name__)

PERIOD_SECONDS = 0.1

Look = Callable[[RouteKey], Awaitable[Snapshot | None]]


async def beat(committer: GroupCommitter, leads: Callable[[], bool], interval: float) -> None:
    """Change the heartbeat route every ``interval`` seconds while this server ``leads``; runs until cancelled."""
    intent = Intent(actor="pointsman", reason="heartbeat: measures the staleness of caches")
    while True:
        await asyncio.sleep(interval)
        if not leads():
            continue
        update = Update(HEARTBEAT, f"https://heartbeat.invalid/{time.time_ns()}", allow_missing=True)
        try:
            await committer.update(update, intent)
        except RetryLater:
            continue  # the next beat comes anyway
        except PointsmanError as error:
            logger.warning("the heartbeat failed: %s", error)


class StalenessProbe:
    """Reads the heartbeat in every layer, and reports for each beat how long a layer returned the one before.

    A layer was stale from the commit of the next beat (its ``update_time``) to the last read that still returned the
    one before. The error is ``PERIOD_SECONDS``, and the difference of the clocks of this server and of PostgreSQL.
    """

    def __init__(
        self,
        layers: Mapping[str, Look],
        observe: Callable[[str, float], None],
        *,
        now: Callable[[], float] = time.time,
    ) -> None:
        """``observe`` is called with a layer and seconds. ``now`` is the wall clock, in seconds since 1970."""
        self._layers = dict(layers)
        self._observe = observe
        self._now = now
        self._last: dict[str, tuple[int, float]] = {}

    async def run(self) -> None:
        """Read, until cancelled."""
        while True:
            await asyncio.sleep(PERIOD_SECONDS)
            await self.look()

    async def look(self) -> None:
        """Read every layer once."""
        for layer, look in self._layers.items():
            looked_at = self._now()
            try:
                snapshot = await look(HEARTBEAT)
            except PointsmanError:
                continue
            if snapshot is not None and snapshot.route is not None:
                self._saw(layer, snapshot.route.revision, snapshot.route.update_time.timestamp(), looked_at)

    def _saw(self, layer: str, revision: int, beaten_at: float, looked_at: float) -> None:
        shown, last_look = self._last.get(layer, (revision, looked_at))
        if revision > shown:
            self._observe(layer, max(0.0, last_look - beaten_at))
        self._last[layer] = (revision, looked_at)
