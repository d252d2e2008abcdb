"""The relay: what is committed reaches the broker, in order, and surely.

Every server runs one; the store lets one of them lead. Progress is recorded only for what the broker has
acknowledged without a gap, so whatever dies where, the next leader publishes the rest; at worst some of it twice.
"""

import asyncio
import logging
from collections.abc import Coroutine, Sequence

from pointsman_server.backoff import Backoff
from pointsman_server.errors import RetryLater
from pointsman_server.ports import BrokerUnavailable, ChangePublisher, Leadership, RelayLog
from pointsman_server.routes import Change

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
                while True:
                    await self._advance(leadership)
            finally:
                self.leader = False

    async def _advance(self, leadership: Leadership) -> None:
        """Publish the next batch, or wait for one. Raises StoreUnavailable or BrokerUnavailable."""
        changes = await leadership.unpublished(self._batch)
        if changes:
            await self._to_the_end(self._publish(leadership, changes))
        self._worked()
        if not changes:
            await leadership.wait(self._idle_seconds)

    async def _publish(self, leadership: Leadership, changes: Sequence[Change]) -> None:
        count = await self._publisher.publish(changes)
        if count:
            await leadership.published(changes[count - 1].revision)
        if count < len(changes):
            raise BrokerUnavailable(f"the broker took {count} of {len(changes)} changes")

    async def _to_the_end(self, step: Coroutine[object, object, None]) -> None:
        """Run ``step``; a cancellation comes through only after it, or when its grace is over."""
        task = asyncio.ensure_future(step)
        try:
            await asyncio.shield(task)
        except asyncio.CancelledError:
            await asyncio.wait({task}, timeout=self._grace_seconds)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            raise

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
