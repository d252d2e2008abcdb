"""One replica, what is known of it, and whether what was read from it can be that of the primary."""

import logging
from dataclasses import dataclass

from pointsman_server.adapters.postgres.database import Database

logger = logging.getLogger(__name__)

# After an error a replica is left out for so long, at least, and until a check finds it well.
LEFT_OUT_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Head:
    """Where a copy of the database is: its clock, and the last change of its history, which may be compacted."""

    epoch: str
    revision: int
    event: str | None


class Refused(Exception):
    """A replica is not used. ``reason`` is for the metrics; the text follows "the replica at …"."""

    def __init__(self, reason: str, text: str) -> None:
        super().__init__(text)
        self.reason = reason


class Replica:
    """One replica, and what is known of it.

    ``refused``: why it is left out; None: it is used. ``lag``: how many changes it lacked when it was last compared.
    """

    def __init__(self, database: Database) -> None:
        self.database = database
        self.address = database.address
        self.refused: Refused | None = Refused("down", "was not checked yet")
        self.lag = 0
        self._left_out_at = float("-inf")

    def leave_out(self, refused: Refused, now: float) -> None:
        if self.refused is None or self.refused.reason != refused.reason:
            logger.warning("the replica at %s %s: it is left out", self.address, refused)
        self.refused, self._left_out_at = refused, now

    def take_back(self, now: float) -> None:
        """Use it again, unless it was left out only just now."""
        if self.refused is not None and now - self._left_out_at >= LEFT_OUT_SECONDS:
            self.refused = None
            logger.info("the replica at %s is used", self.address)


def compare(replica: Head, primary: Head, changes: int) -> Refused | None:
    """Say why what was read at ``replica`` cannot be compared with the state of the primary; None: it can.

    ``primary.event`` is the change at the revision of the replica, and ``changes`` says how many later ones were found:
    old ones may have been compacted.
    """
    if replica.epoch != primary.epoch:
        return Refused("other", f"is in epoch {replica.epoch}, and the primary in {primary.epoch}")
    if replica.revision > primary.revision:
        return Refused("ahead", f"is at revision {replica.revision}, and the primary only at {primary.revision}")
    if replica.event != primary.event and primary.event is not None:
        return Refused("other", f"has another change at revision {replica.revision} than the primary has")
    if replica.event != primary.event or changes < primary.revision - replica.revision:
        return Refused("behind", f"lacks {primary.revision - replica.revision} changes")
    return None
