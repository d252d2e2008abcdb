"""Copy from the history what the audit log lacks and Kafka will not deliver again.

The audit log is filled from Kafka, which delivers each change once. A database of the audit log that is added later or
restored from a backup lacks what was consumed before. What stays missing is copied from the history.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from contextlib import suppress

from pointsman_server.domain.errors import RetryLater
from pointsman_server.ports.audit_log import AuditLog, Lineage, Span
from pointsman_server.ports.store import ChangeQuery, RouteStore

logger = logging.getLogger(__name__)

INTERVAL_SECONDS = 10.0
BATCH = 500


class AuditBackfill:
    """Checks periodically how far the chain is, and copies what is missing. Several servers may do so at once.

    ``chained`` is the last revision of the chain of the newest epoch.
    """

    def __init__(
        self,
        log: AuditLog,
        lineage: Lineage,
        store: RouteStore,
        published: Callable[[], Awaitable[int]],
        *,
        interval: float = INTERVAL_SECONDS,
    ) -> None:
        """``published`` returns the revision up to which the relay has published: later ones are not missing."""
        self._log = log
        self._lineage = lineage
        self._store = store
        self._published = published
        self._interval = interval
        self._before: dict[str, int] = {}
        self.chained = 0

    async def run(self) -> None:
        """Check every ``interval`` seconds until cancelled."""
        while True:
            with suppress(RetryLater):  # the next round retries
                await self.round()
            await asyncio.sleep(self._interval)

    async def round(self) -> None:
        """Check once. Raises StoreUnavailable or Overloaded."""
        published = await self._published()
        for span in await self._lineage.spans():
            self.chained = await self._keep(span, min(span.last, published))

    async def _keep(self, span: Span, last: int) -> int:
        head = await self._log.extend(span)
        # While the head moves, Kafka delivers. If it stands still from one round to the next, something is missing.
        if head < last and head == self._before.get(span.epoch):
            head = await self._fill(span, head, last)
        self._before[span.epoch] = head
        return head

    async def _fill(self, span: Span, head: int, last: int) -> int:
        logger.warning("the audit log lacks revision %d of epoch %s: copying from the history", head + 1, span.epoch)
        while head < last:
            query = ChangeQuery(after_revision=head, before_revision=last + 1, limit=BATCH)
            changes = await self._store.list_changes(query)
            await self._log.append(changes)
            extended = await self._log.extend(span)
            if extended == head:
                break
            head = extended
        return head
