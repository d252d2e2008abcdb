"""Consumers of the changes: receive, do the work, and only then commit.

What failed comes again until it succeeds: a change is never skipped, so handlers are idempotent by revision.
``AuditLog.append`` is a handler as it is; ``CacheHandler`` is the one for the shared cache.
"""

import logging
from collections.abc import Awaitable, Callable, Sequence

from pointsman_server.domain.errors import RetryLater
from pointsman_server.domain.routes import Change
from pointsman_server.ports.broker import BrokerUnavailable, ChangeSource, Delivery, Poison
from pointsman_server.ports.cache import CacheUnavailable
from pointsman_server.runtime.backoff import Backoff

logger = logging.getLogger(__name__)

Handler = Callable[[Sequence[Change]], Awaitable[None]]
SetAside = Callable[[Poison], Awaitable[None]]


class Consumer:
    """Feeds a handler as long as ``run`` runs.

    ``error`` is what failed last, None since it last worked; ``handled`` and ``poisoned`` count the changes that were
    handled and the messages that were set aside.
    """

    def __init__(
        self,
        name: str,
        source: ChangeSource,
        handle: Handler,
        set_aside: SetAside,
        *,
        receive_seconds: float = 1.0,
        backoff: Backoff | None = None,
    ) -> None:
        """``name`` is for the log. ``receive_seconds``: how long one look for messages may take."""
        self._name = name
        self._source = source
        self._handle = handle
        self._set_aside = set_aside
        self._receive_seconds = receive_seconds
        self._backoff = backoff or Backoff()
        self.error: Exception | None = None
        self.handled = 0
        self.poisoned = 0

    async def run(self) -> None:
        """Consume, for ever; cancel it to stop. What was not committed by then comes again."""
        while True:
            try:
                await self._advance()
            except (RetryLater, CacheUnavailable, BrokerUnavailable) as error:
                self._failed(error)
            except Exception as error:
                # Not even a bug may end it: the changes wait until it is mended.
                logger.exception("the consumer %s failed", self._name)
                self.error = error
            else:
                self._worked()
                continue
            await self._source.rewind()
            await self._backoff.wait()

    async def _advance(self) -> None:
        """Take one delivery through. Raises whatever went wrong, with nothing committed."""
        delivery = await self._source.receive(self._receive_seconds)
        if delivery.changes:
            await self._handle(delivery.changes)
        # After the handler: while that fails and is tried again, they would be set aside again and again.
        for poison in delivery.poison:
            await self._set_aside(poison)
        if delivery.changes or delivery.poison:
            await self._source.commit()
            self._count(delivery)

    def _count(self, delivery: Delivery) -> None:
        self.handled += len(delivery.changes)
        self.poisoned += len(delivery.poison)
        for poison in delivery.poison:
            where = (poison.topic, poison.partition, poison.offset)
            logger.error("the consumer %s set aside %s[%d]@%d: %s", self._name, *where, poison.problem)

    def _worked(self) -> None:
        if self.error is not None:
            logger.info("the consumer %s works again", self._name)
        self.error = None
        self._backoff.reset()

    def _failed(self, error: Exception) -> None:
        # Once per outage: while it lasts, the lag tells.
        if type(error) is not type(self.error):
            logger.warning("the consumer %s waits: %s", self._name, error, exc_info=error.__cause__)
        self.error = error
