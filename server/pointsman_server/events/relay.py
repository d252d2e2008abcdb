"""The relay: publishes every committed change to the broker, in order, at least once.

Every server runs one; the store lets one of them lead. Progress is recorded only up to the last change that the broker
has acknowledged without a gap, so after a crash the next leader publishes the rest, and at worst some changes twice.
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
    """Publishes the history while it leads.

    ``leader``: whether this server leads now. ``error``: the last error, None after a success.
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
        """Publish up to ``batch`` changes at once; look for new ones every ``idle_seconds`` even without a wake-up.

        On cancellation, a batch that is being published gets ``grace_seconds`` to be acknowledged and recorded.
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
        """Lead and publish until cancelled."""
        while True:
            try:
                await self._lead()
            except (RetryLater, BrokerUnavailable) as error:
                self._failed(error)
            except Exception as error:
                # A bug must not end the task: all consumers depend on it.
                logger.exception("the relay failed")
                self.error = error
            await self._backoff.wait()

    async def _lead(self) -> None:
        """Become the leader and publish until something fails. Then another server can become the leader."""
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
        """Record ``published``, then publish the next changes or wait for some. Returns the revision to record next.

        Raises StoreUnavailable or BrokerUnavailable.
        """
        changes = await leadership.unpublished(self._batch, published)
        if changes:
            published = await self._publish_shielded(leadership, changes)
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

    async def _publish_shielded(self, leadership: Leadership, changes: Sequence[Change]) -> int:
        """Publish. A cancellation is delayed until that is done and recorded, at most by the grace period."""
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
        # One log line per outage; the lag is a metric.
        if type(error) is not type(self.error):
            logger.warning("the relay waits: %s", error, exc_info=error.__cause__)
        self.error = error
