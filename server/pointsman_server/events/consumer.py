"""Consumers of the changes in Kafka: receive, handle, and only then commit the offset.

A delivery that fails is retried until it succeeds; no change is skipped. Handlers must be idempotent by revision.
There are two: ``AuditLog.append``, and ``CacheHandler`` for the shared cache.
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
    """Calls ``handle`` with the changes that ``source`` delivers.

    ``error`` is the last error, None after a success. ``handled`` counts changes, ``poisoned`` counts messages that
    cannot be decoded and were passed to ``set_aside``.
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
        """``name`` is for the log. ``receive_seconds``: the longest wait for messages."""
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
        """Consume until cancelled. What is not committed by then is delivered again."""
        while True:
            try:
                await self._advance()
            except (RetryLater, CacheUnavailable, BrokerUnavailable) as error:
                self._failed(error)
            except Exception as error:
                # A bug must not end the task: the changes wait until it is fixed.
                logger.exception("the consumer %s failed", self._name)
                self.error = error
            else:
                self._worked()
                continue
            await self._source.rewind()
            await self._backoff.wait()

    async def _advance(self) -> None:
        """Handle and commit one delivery. Raises what failed, with nothing committed."""
        delivery = await self._source.receive(self._receive_seconds)
        if delivery.changes:
            await self._handle(delivery.changes)
        # After the handler: each retry of the handler would set them aside once more.
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
        # One log line per outage; the lag is a metric.
        if type(error) is not type(self.error):
            logger.warning("the consumer %s waits: %s", self._name, error, exc_info=error.__cause__)
        self.error = error
