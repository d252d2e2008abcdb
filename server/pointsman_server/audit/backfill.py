"""What keeps the audit log whole where Kafka cannot: its rows of long ago, when it lies in a new or restored database.

Everything comes by Kafka, and from there only once. A database for the audit log that is configured later, or is
restored from a backup, lacks what was consumed before; so what it lacks for a while is copied from the history.
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
    """Looks again and again how far the chain is, and fills in what does not come. Harmless when several do it.

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
        """``published`` gives the revision up to which Kafka has everything: what is later is still on its way."""
        self._log = log
        self._lineage = lineage
        self._store = store
        self._published = published
        self._interval = interval
        self._before: dict[str, int] = {}
        self.chained = 0

    async def run(self) -> None:
        """Keep the log whole, for ever; cancel it to stop."""
        while True:
            with suppress(RetryLater):  # the next round does it
                await self.round()
            await asyncio.sleep(self._interval)

    async def round(self) -> None:
        """Look once. Raises StoreUnavailable or Overloaded."""
        published = await self._published()
        for span in await self._lineage.spans():
            self.chained = await self._keep(span, min(span.last, published))

    async def _keep(self, span: Span, last: int) -> int:
        head = await self._log.extend(span)
        # What moves is being consumed; only what stands still from one round to the next does not come.
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
