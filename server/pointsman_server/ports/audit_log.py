"""The audit log, and the lineage of epochs that it is checked by."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pointsman_server.domain.routes import Change


@dataclass(frozen=True, slots=True)
class Span:
    """One epoch in the history: the revisions ``first`` to ``last``, without a gap."""

    epoch: str
    first: int
    last: int


class Lineage(Protocol):
    """Which epochs the history of the store consists of."""

    async def spans(self) -> list[Span]:
        """Read the epochs in the order of their revisions. Raises StoreUnavailable."""


class AuditLog(Protocol):
    """The append-only record of who changed what: exactly one row per epoch and revision, chained by hashes.

    ``auditing`` says how. However many append at once, and in whatever order, there is one chain per epoch.
    """

    async def append(self, changes: Sequence[Change]) -> None:
        """Add the changes that are not there yet, and extend the chain. Raises StoreUnavailable."""

    async def extend(self, span: Span) -> int:
        """Extend the chain over the rows that lie there, and return its last revision.

        That is one before the first revision of ``span`` as long as the first is missing. Raises StoreUnavailable.
        """
