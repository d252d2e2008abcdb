"""The schemas of the store and of the audit log, as alembic revisions in plain SQL.

Each schema has its own revisions and its own version table, because the audit log may be in a database of its own.
Otherwise both are in one database.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, create_engine, text
from sqlalchemy.exc import DBAPIError
from sqlalchemy.pool import NullPool

from pointsman_server.adapters.postgres.pooler import examine_now, holds, is_pooled
from pointsman_server.adapters.postgres.session import (
    BEGIN_SESSION,
    SET_STATEMENT_TIMEOUT,
    NoSession,
    UnsuitableDatabase,
    address,
    check_encoding,
    parse_url,
    session_settings,
    to_conninfo,
    to_line,
)

LOCK = 0x706F696E74  # "point": the advisory lock that lets one migration through at a time
CONNECT_SECONDS = 10.0
# Alembic keeps its configuration in module globals, so migrations of different databases cannot overlap in a process.
_alembic = threading.Lock()


class MigrationError(Exception):
    """A schema could not be upgraded. The text says why and holds no secret."""


@dataclass(frozen=True, slots=True)
class Schema:
    """A line of revisions: the directory that holds them, and the table that names the current one."""

    directory: str
    version_table: str


STORE = Schema("versions", "alembic_version")
AUDIT = Schema("audit", "audit_version")


def migrate(database_url: str, audit_database_url: str = "", *, patience: float = 60.0) -> tuple[str | None, str]:
    """Upgrade both schemas to their newest revisions. Safe to call from many processes at once.

    Without ``audit_database_url`` the audit log is in the database of the store. Returns the revision of the store
    before and after. Raises BadDatabaseUrl, and MigrationError: a database cannot be reached or does not allow the
    migration, or another migration takes longer than ``patience`` seconds.
    """
    before = upgrade(database_url, STORE, patience=patience)
    if audit_database_url:
        upgrade(audit_database_url, AUDIT, "the audit database: ", patience=patience)
    else:
        upgrade(database_url, AUDIT, patience=patience)
    return before, head()


def upgrade(url: str, schema: Schema, name: str = "", *, patience: float = 60.0) -> str | None:
    """Upgrade one schema to its newest revision and return the one before. ``name`` begins the text of errors."""
    try:
        return _upgrade(url, schema, patience)
    except MigrationError as error:
        raise MigrationError(f"{name}{error}") from error
    except DBAPIError as error:
        raise MigrationError(f"{name}PostgreSQL at {address(parse_url(url))} {_explain(error.orig)}") from error
    except UnsuitableDatabase as error:
        raise MigrationError(f"{name}PostgreSQL at {address(parse_url(url))} {error}") from error


def head(schema: Schema = STORE) -> str:
    """Return the newest revision of a schema that this version knows."""
    newest = ScriptDirectory.from_config(_config(schema)).get_current_head()
    if newest is None:
        raise RuntimeError("there are no migrations")
    return newest


def _upgrade(url: str, schema: Schema, patience: float) -> str | None:
    conninfo = to_conninfo(parse_url(url), CONNECT_SECONDS)
    engine = create_engine("postgresql+psycopg://", creator=lambda: _connect(conninfo), poolclass=NullPool)
    with engine.connect() as connection, _locked(connection, patience):
        before = _current(connection, schema)
        # Or alembic takes the transaction for ours, and cannot leave it to build an index.
        connection.commit()
        config = _config(schema)
        config.attributes.update(
            connection=connection, version_table=schema.version_table, on_version_apply=_require_lock
        )
        with _alembic:
            command.upgrade(config, "head")
        connection.commit()
        return before


def _connect(conninfo: str) -> psycopg.Connection:
    """Connect, with our session settings and no limit of time for a statement. Raises UnsuitableDatabase.

    Through a pooler in transaction mode nothing can be locked, so that is unsuitable, too.
    """
    connection = psycopg.connect(conninfo, autocommit=True)
    try:
        settings = session_settings(timeout=0)
        cursor = psycopg.RawCursor(connection)
        cursor.execute(SET_STATEMENT_TIMEOUT, [settings["statement_timeout"]])
        row = cursor.execute(BEGIN_SESSION, [list(settings), list(settings.values())]).fetchone()
        encoding, _, process, _ = row or ("unknown", None, 0, 0)
        check_encoding(encoding)
        if is_pooled(connection, process):
            examine_now(connection, process, lambda: psycopg.connect(conninfo, autocommit=True))
        connection.autocommit = False
    except BaseException:
        connection.close()
        raise
    return connection


def _explain(error: BaseException | None) -> str:
    if isinstance(error, UnsuitableDatabase):
        return str(error)
    if isinstance(error, psycopg.errors.ReadOnlySqlTransaction):
        return "is read-only: name the primary, or several hosts with target_session_attrs=read-write"
    if isinstance(error, psycopg.errors.InsufficientPrivilege):
        return (
            f"refuses a right: {to_line(error)}; the role that migrates needs CREATE on the schema and must own its "
            "tables"
        )
    if isinstance(error, psycopg.errors.InvalidSchemaName):
        return f"has no schema to create tables in: {to_line(error)}; check the search_path"
    if isinstance(error, psycopg.OperationalError) and error.sqlstate is None:
        return f"cannot be reached: {to_line(error)}"
    if isinstance(error, psycopg.Error):
        return f"refuses a statement of the migration: {to_line(error)} (SQLSTATE {error.sqlstate})"
    return f"fails: {error}"


def _current(connection: Connection, schema: Schema) -> str | None:
    """Return the revision that the database is at. Raises MigrationError when this version does not know it."""
    current = MigrationContext.configure(
        connection, opts={"version_table": schema.version_table}
    ).get_current_revision()
    known = {script.revision for script in ScriptDirectory.from_config(_config(schema)).walk_revisions()}
    if current is not None and current not in known:
        raise MigrationError(
            f"the schema is at {current}, which a newer version of pointsman-server made; "
            f"this version knows {head(schema)}"
        )
    return current


@contextmanager
def _locked(connection: Connection, patience: float) -> Iterator[None]:
    # Tried in a loop: waiting inside the database holds a snapshot, which deadlocks with CREATE INDEX CONCURRENTLY.
    give_up = time.monotonic() + patience
    while not connection.execute(text("SELECT pg_try_advisory_lock(:lock)"), {"lock": LOCK}).scalar():
        connection.commit()
        if time.monotonic() > give_up:
            raise MigrationError(f"another migration holds the lock for over {patience:.0f} s")
        time.sleep(0.1)
    connection.commit()
    try:
        yield
    finally:
        connection.rollback()
        connection.execute(text("SELECT pg_advisory_unlock(:lock)"), {"lock": LOCK})
        connection.commit()


def _require_lock(ctx: MigrationContext, **_: object) -> None:
    """Raise NoSession, before a step is committed, if the session is no longer the one that holds the lock.

    Only a pooler in transaction mode does that, and ``_connect`` may have missed that it is one.
    """
    if ctx.connection is not None and not ctx.connection.execute(text(f"SELECT {holds(LOCK)}")).scalar():
        raise NoSession


def _config(schema: Schema) -> Config:
    here = Path(__file__).parent
    config = Config()
    config.set_main_option("script_location", str(here))
    config.set_main_option("version_locations", str(here / schema.directory))
    config.set_main_option("path_separator", "newline")
    return config
