"""The audit log, and the epochs of the history that it must cover."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from pointsman_server.domain.routes import Change


@dataclass(frozen=True, slots=True)
class Span:
    """The revisions ``first`` to ``last`` of one epoch, without a gap."""

    epoch: str
    first: int
    last: int


class Lineage(Protocol):
    """The epochs of the history in the store."""

    async def spans(self) -> list[Span]:
        """Read the epochs in the order of their revisions. Raises StoreUnavailable."""


class AuditLog(Protocol):
    """The append-only record of changes: exactly one row per epoch and revision, chained by hashes (``hash_chain``).

    Concurrent appends, in any order, result in one chain per epoch.
    """

    async def append(self, changes: Sequence[Change]) -> None:
        """Add the changes that are missing, and extend the chain. Raises StoreUnavailable."""

    async def extend(self, span: Span) -> int:
        """Extend the chain up to the first missing row, and return its last revision.

        If the first row of ``span`` is missing, that is the revision before it. Raises StoreUnavailable.
        """
