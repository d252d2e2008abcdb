"""The schema of the store, as alembic revisions in plain SQL."""

import time
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.engine import make_url
from sqlalchemy.exc import OperationalError
from sqlalchemy.pool import NullPool

LOCK = 0x706F696E74  # "point": the advisory lock that lets one migrator through at a time


class MigrationError(Exception):
    """The schema could not be brought up; the text says why, and holds no secret."""


def migrate(database_url: str, *, patience: float = 60.0) -> tuple[str | None, str]:
    """Bring the schema to the newest revision; safe to call from many processes at once.

    Returns the revision before and the one after. Raises MigrationError when the database cannot be reached, and
    when another migrator is not done within ``patience`` seconds.
    """
    try:
        return _migrate(database_url, patience)
    except OperationalError as error:
        raise MigrationError(f"PostgreSQL cannot be reached: {str(error.orig).strip().splitlines()[0]}") from error


def _migrate(database_url: str, patience: float) -> tuple[str | None, str]:
    engine = create_engine(_sqlalchemy_url(database_url), poolclass=NullPool)
    with engine.connect() as connection:
        _lock(connection, patience)
        try:
            before = _current(connection)
            config = _config()
            config.attributes["connection"] = connection
            command.upgrade(config, "head")
            connection.commit()
            return before, head()
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
            connection.commit()


def head() -> str:
    """Name the newest revision of the schema that this code knows."""
    newest = ScriptDirectory.from_config(_config()).get_current_head()
    if newest is None:
        raise RuntimeError("there are no migrations")
    return newest


def _current(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _lock(connection: Connection, patience: float) -> None:
    # Tried in a loop: waiting inside the database holds a snapshot, which deadlocks with CREATE INDEX CONCURRENTLY.
    give_up = time.monotonic() + patience
    while not connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK}).scalar():
        connection.commit()
        if time.monotonic() > give_up:
            raise MigrationError(f"another migration holds the lock for over {patience:.0f} s")
        time.sleep(0.1)
    connection.commit()


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent))
    return config


def _sqlalchemy_url(database_url: str) -> str:
    return make_url(database_url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
