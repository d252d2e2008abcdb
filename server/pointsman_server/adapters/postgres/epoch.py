"""A new epoch for a database that was restored to an older state."""

from dataclasses import dataclass

from pointsman_server.adapters.postgres.database import Database

# First, and locked to the commit: no write gets a revision while the epoch becomes another.
LOCK = "SELECT epoch::text, revision FROM clock FOR UPDATE"

RENEW = "UPDATE clock SET epoch = gen_random_uuid() RETURNING epoch::text"

# What was on the broker when the backup was made is there still, and the keeper of the audit log copies what that lacks
# from the history. So only what the backup did not know to be published comes again, as the same (epoch, revision).
CONFINE = """
UPDATE relay SET revision = least(relay.revision, clock.revision) FROM clock RETURNING relay.revision
"""


@dataclass(frozen=True, slots=True)
class NewEpoch:
    """What became of a database: its epochs, its revision, and the one up to which nothing is published again."""

    old: str
    new: str
    revision: int
    published: int


async def renew_epoch(database: Database) -> NewEpoch:
    """Give the database a new epoch, in one transaction. Raises StoreUnavailable."""
    async with database.connection() as connection:
        old = await (await connection.execute(LOCK)).fetchone()
        new = await (await connection.execute(RENEW)).fetchone()
        relay = await (await connection.execute(CONFINE)).fetchone()
    if not (old and new and relay):
        raise RuntimeError("the database has no clock or no relay")
    return NewEpoch(old[0], new[0], old[1], relay[0])
