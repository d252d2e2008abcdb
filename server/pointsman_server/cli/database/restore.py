"""``pointsman-server restore``: what comes after a backup of PostgreSQL was restored."""

import asyncio
import sys
from typing import Annotated

import typer

from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.history.epoch import NewEpoch, renew_epoch
from pointsman_server.cli.common import configure_logs, fail, read_settings, require
from pointsman_server.domain.errors import RetryLater

TIMEOUT_SECONDS = 5.0


class RestoreError(Exception):
    """The database could not be given a new epoch; the text says why, and holds no secret."""


def restore(
    *, yes: Annotated[bool, typer.Option("--yes", "-y", help="Do not ask, also on a terminal.")] = False
) -> None:
    """Finish the restore of a backup: give the database at DATABASE_URL a new epoch. Run it once per restore.

    Revisions after the backup belong to changes that are lost, and are given again to others: the epoch tells them
    apart. Servers may run; each drops what it knew of the old epoch within a second.
    """
    settings = read_settings()
    require(settings, ())
    configure_logs(settings)
    url = settings.database_url.get_secret_value()
    try:
        if sys.stdin.isatty() and not yes:
            typer.confirm(_question(url), abort=True)
        typer.echo(_describe(begin_epoch(url)))
    except RestoreError as error:
        fail(str(error))


def begin_epoch(database_url: str) -> NewEpoch:
    """Give the database a new epoch. Raises RestoreError."""
    return asyncio.run(_begin_epoch(_database(database_url)))


async def _begin_epoch(database: Database) -> NewEpoch:
    await database.open()
    try:
        return await renew_epoch(database)
    except RetryLater as error:
        raise RestoreError(f"PostgreSQL at {database.address} {database.explain(error)}") from error
    finally:
        await database.close()


def _database(url: str) -> Database:
    # One transaction: it needs no session.
    return Database(url, pooled=True, pool_min=1, pool_max=1, timeout=TIMEOUT_SECONDS)


def _question(database_url: str) -> str:
    address = _database(database_url).address
    return f"Give the database at {address} a new epoch? Revision tokens of the old one become void"


def _describe(done: NewEpoch) -> str:
    return (
        f"old epoch  {done.old}\n"
        f"new epoch  {done.new}\n"
        f"the database is at revision {done.revision}; changes after {done.published} are published again"
    )
