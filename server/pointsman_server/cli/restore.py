"""``pointsman-server restore``: what comes after a backup of PostgreSQL was restored."""

import asyncio

from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.epoch import NewEpoch, renew_epoch
from pointsman_server.domain.errors import RetryLater

TIMEOUT_SECONDS = 5.0


class RestoreError(Exception):
    """The database could not be given a new epoch; the text says why, and holds no secret."""


def question(database_url: str) -> str:
    """Ask whether to go on."""
    return f"Give the database at {_database(database_url).address} a new epoch? Every token of the old one is void"


def restore(database_url: str) -> NewEpoch:
    """Give the database a new epoch. Raises RestoreError."""
    return asyncio.run(_restore(_database(database_url)))


def describe(done: NewEpoch) -> str:
    """Say what was done, a line each."""
    return (
        f"old epoch  {done.old}\n"
        f"new epoch  {done.new}\n"
        f"the database is at revision {done.revision}; changes after {done.published} are published again"
    )


async def _restore(database: Database) -> NewEpoch:
    await database.open()
    try:
        return await renew_epoch(database)
    except RetryLater as error:
        raise RestoreError(f"PostgreSQL at {database.address} {database.explain(error)}") from error
    finally:
        await database.close()


def _database(url: str) -> Database:
    return Database(url, pool_min=1, pool_max=1, timeout=TIMEOUT_SECONDS)
