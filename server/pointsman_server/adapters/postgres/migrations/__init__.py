"""The schemas of the store and of the audit log, as alembic revisions in plain SQL.

They are two, each with its own revisions and its own table that says how far it is, because the audit log may lie in a
database of its own. Where it does not, both lie in one.
"""

import threading
import time
from dataclasses import dataclass
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
# Alembic keeps what it works on in globals of its modules. The lock in the database does not help between databases.
_alembic = threading.Lock()


class MigrationError(Exception):
    """The schema could not be brought up; the text says why, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Schema:
    """One line of revisions: the directory that they are in, and the table that names the one that is reached."""

    directory: str
    version_table: str


STORE = Schema("versions", "alembic_version")
AUDIT = Schema("audit", "audit_version")


def migrate(database_url: str, audit_database_url: str = "", *, patience: float = 60.0) -> tuple[str | None, str]:
    """Bring both schemas to their newest revisions; safe to call from many processes at once.

    Without ``audit_database_url`` the audit log lies in the database of the store. Returns the revision of the store
    before and the one after. Raises MigrationError when a database cannot be reached, and when another migrator is not
    done within ``patience`` seconds.
    """
    before = bring_up(database_url, STORE, patience=patience)
    if audit_database_url:
        bring_up(audit_database_url, AUDIT, "the audit database: ", patience=patience)
    else:
        bring_up(database_url, AUDIT, patience=patience)
    return before, head()


def bring_up(url: str, schema: Schema, name: str = "", *, patience: float = 60.0) -> str | None:
    """Bring one schema to its newest revision, and return the one before. ``name`` begins the text of errors."""
    try:
        return _bring_up(url, schema, patience)
    except MigrationError as error:
        raise MigrationError(f"{name}{error}") from error
    except OperationalError as error:
        reason = str(error.orig).strip().splitlines()[0]
        raise MigrationError(f"{name}PostgreSQL cannot be reached: {reason}") from error


def _bring_up(url: str, schema: Schema, patience: float) -> str | None:
    engine = create_engine(_sqlalchemy_url(url), poolclass=NullPool)
    with engine.connect() as connection:
        _lock(connection, patience)
        try:
            before = _current(connection, schema)
            config = _config(schema)
            config.attributes.update(connection=connection, version_table=schema.version_table)
            with _alembic:
                command.upgrade(config, "head")
            connection.commit()
            return before
        finally:
            connection.rollback()
            connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
            connection.commit()


def head(schema: Schema = STORE) -> str:
    """Name the newest revision of a schema that this code knows."""
    newest = ScriptDirectory.from_config(_config(schema)).get_current_head()
    if newest is None:
        raise RuntimeError("there are no migrations")
    return newest


def _current(connection: Connection, schema: Schema) -> str | None:
    return MigrationContext.configure(connection, opts={"version_table": schema.version_table}).get_current_revision()


def _lock(connection: Connection, patience: float) -> None:
    # Tried in a loop: waiting inside the database holds a snapshot, which deadlocks with CREATE INDEX CONCURRENTLY.
    give_up = time.monotonic() + patience
    while not connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK}).scalar():
        connection.commit()
        if time.monotonic() > give_up:
            raise MigrationError(f"another migration holds the lock for over {patience:.0f} s")
        time.sleep(0.1)
    connection.commit()


def _config(schema: Schema) -> Config:
    here = Path(__file__).parent
    config = Config()
    config.set_main_option("script_location", str(here))
    config.set_main_option("version_locations", str(here / schema.directory))
    config.set_main_option("path_separator", "newline")
    return config


def _sqlalchemy_url(database_url: str) -> str:
    return make_url(database_url).set(drivername="postgresql+psycopg").render_as_string(hide_password=False)
