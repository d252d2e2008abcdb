"""A new epoch for a database that was restored to an older state."""

from dataclasses import dataclass

from pointsman_server.adapters.postgres.database import Database

# Locked until the commit, so that no write gets a revision while the epoch changes.
LOCK = "SELECT epoch::text, revision FROM clock FOR UPDATE"

RENEW = "UPDATE clock SET epoch = gen_random_uuid() RETURNING epoch::text"

# The broker still has what was published before the backup, and the audit backfill copies what is missing there from
# the history. So only changes that the backup has not recorded as published are sent again, with the same epoch and
# revision.
CAP_PROGRESS = """
UPDATE relay SET revision = least(relay.revision, clock.revision) FROM clock RETURNING relay.revision
"""


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """The epochs before and after, the revision, and the one up to which nothing is published again."""

    old: str
    new: str
    revision: int
    published: int


async def renew_epoch(database: Database) -> NewEpoch:
    """Give the database a new epoch, in one transaction. Raises StoreUnavailable."""
    async with database.connection() as connection:
        old = await (await connection.execute(LOCK)).fetchone()
        new = await (await connection.execute(RENEW)).fetchone()
        relay = await (await connection.execute(CAP_PROGRESS)).fetchone()
    if not (old and new and relay):
        raise RuntimeError("the database has no clock or no relay")
    return NewEpoch(old[0], new[0], old[1], relay[0])
