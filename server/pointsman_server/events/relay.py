"""The relay: what is committed reaches the broker, in order, and surely.

Every server runs one; the store lets one of them lead. Progress is recorded only for what the broker has
acknowledged without a gap, so whatever dies where, the next leader publishes the rest; at worst some of it twice.
"""

import asyncio
import logging
from collections.abc import Sequence

from pointsman_server.domain.errors import RetryLater
from pointsman_server.domain.routes import Change
from pointsman_server.ports.broker import BrokerUnavailable, ChangePublisher, Leadership, RelayLog
from pointsman_server.runtime.backoff import Backoff

logger = logging.getLogger(__name__)


class Relay:
    """Publishes the history as long as ``run`` runs.

    ``leader`` says whether this server leads now; ``error`` is what stopped it last, None since it last worked.
    """

    def __init__(
        self,
        log: RelayLog,
        publisher: ChangePublisher,
        *,
        batch: int = 500,
        idle_seconds: float = 5.0,
        grace_seconds: float = 5.0,
        backoff: Backoff | None = None,
    ) -> None:
        """Publish up to ``batch`` changes at once; look for some every ``idle_seconds`` even when nothing wakes us.

        When cancelled, a batch that is on its way gets ``grace_seconds`` to arrive and be recorded.
        """
        self._log = log
        self._publisher = publisher
        self._batch = batch
        self._idle_seconds = idle_seconds
        self._grace_seconds = grace_seconds
        self._backoff = backoff or Backoff()
        self.leader = False
        self.error: Exception | None = None

    async def run(self) -> None:
        """Lead and publish, for ever; cancel it to stop."""
        while True:
            try:
                await self._lead()
            except (RetryLater, BrokerUnavailable) as error:
                self._failed(error)
            except Exception as error:
                # Everybody waits for the relay: not even a bug may end it.
                logger.exception("the relay failed")
                self.error = error
            await self._backoff.wait()

    async def _lead(self) -> None:
        """Become the leader and publish until something fails: then another server may have more luck."""
        async with self._log.lead() as leadership:
            self.leader = True
            logger.info("the relay leads")
            try:
                published = 0
                while True:
                    published = await self._advance(leadership, published)
            finally:
                self.leader = False

    async def _advance(self, leadership: Leadership, published: int) -> int:
        """Record ``published`` and publish what comes next, or wait for some. Returns what is to be recorded then.

        Raises StoreUnavailable or BrokerUnavailable.
        """
        changes = await leadership.unpublished(self._batch, published)
        if changes:
            published = await self._to_the_end(leadership, changes)
        self._worked()
        if not changes:
            await leadership.wait(self._idle_seconds)
            return 0
        return published

    async def _publish(self, leadership: Leadership, changes: Sequence[Change]) -> int:
        count = await self._publisher.publish(changes)
        if count < len(changes):
            if count:
                await leadership.published(changes[count - 1].revision)
            raise BrokerUnavailable(f"the broker took {count} of {len(changes)} changes")
        return changes[-1].revision

    async def _to_the_end(self, leadership: Leadership, changes: Sequence[Change]) -> int:
        """Publish; a cancellation comes through only when that is over and recorded, or its grace is."""
        publishing = asyncio.ensure_future(self._publish(leadership, changes))
        try:
            return await asyncio.shield(publishing)
        except asyncio.CancelledError:
            recording = asyncio.ensure_future(self._record(leadership, publishing))
            await asyncio.wait({recording}, timeout=self._grace_seconds)
            recording.cancel()
            await asyncio.gather(recording, publishing, return_exceptions=True)
            raise

    async def _record(self, leadership: Leadership, publishing: asyncio.Future[int]) -> None:
        await leadership.published(await publishing)

    def _worked(self) -> None:
        if self.error is not None:
            logger.info("the relay works again")
        self.error = None
        self._backoff.reset()

    def _failed(self, error: Exception) -> None:
        # Once per outage: while it lasts, the lag tells.
        if type(error) is not type(self.error):
            logger.warning("the relay waits: %s", error, exc_info=error.__cause__)
        self.error = error
