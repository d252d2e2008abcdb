"""``pointsman-server compact`` and ``audit compact``: delete what is older than a number of days."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Annotated

import typer

from pointsman_server.adapters.postgres.audit_log import PostgresAuditLog
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.history.compaction import (
    AuditCompaction,
    AuditPlan,
    HistoryCompaction,
    HistoryPlan,
)
from pointsman_server.adapters.postgres.lineage import KnownLineage, PostgresLineage
from pointsman_server.cli.common import configure_logs, fail, read_settings, require
from pointsman_server.config.settings import Settings
from pointsman_server.domain.errors import RetryLater

# For one transaction, which deletes a few thousand rows.
TIMEOUT_SECONDS = 10.0

Days = Annotated[float, typer.Option(min=0.0, help="Delete what is older than this.", metavar="DAYS")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be deleted, and delete nothing.")]


class CompactionError(Exception):
    """A database could not be compacted; the text says which one and why, and holds no secret."""


def compact(*, older_than: Days, dry_run: DryRun = False) -> None:
    """Delete old changes from the history, which watchers that resume and `pointsman history` read.

    Every route stays. So does each change that Kafka or the audit log does not have yet. The audit log is not
    touched. Servers may run.
    """
    settings = _settings()
    try:
        asyncio.run(_compact_history(settings, timedelta(days=older_than), dry_run=dry_run))
    except CompactionError as error:
        fail(str(error))


def compact_audit(*, older_than: Days, dry_run: DryRun = False) -> None:
    """Delete old rows of the audit log. What is left verifies: the chain continues a link that is kept.

    Back them up before, if you must keep them: nothing brings them back. Servers may run.
    """
    settings = _settings()
    try:
        asyncio.run(_compact_audit(settings, timedelta(days=older_than), dry_run=dry_run))
    except CompactionError as error:
        fail(str(error))


def _settings() -> Settings:
    settings = read_settings()
    require(settings, ())
    configure_logs(settings)
    return settings


async def _compact_history(settings: Settings, older_than: timedelta, *, dry_run: bool) -> None:
    url = settings.database_url.get_secret_value()
    async with _opened(url) as database:
        lineage = KnownLineage(await PostgresLineage(database).spans())
    async with _audit_database(settings) as database:
        audited = await PostgresAuditLog(database, lineage).last_contiguous()
    async with _opened(url) as database:
        compaction = HistoryCompaction(database)
        plan = await compaction.plan(older_than, audited)
        done = plan.rows if dry_run else sum([rows async for rows in compaction.run(plan)])
    typer.echo(_describe_history(plan, done, dry_run=dry_run))


async def _compact_audit(settings: Settings, older_than: timedelta, *, dry_run: bool) -> None:
    async with _audit_database(settings) as database:
        compaction = AuditCompaction(database)
        plans = await compaction.plan(older_than)
        for plan in plans:
            done = plan.rows if dry_run else sum([rows async for rows in compaction.run(plan)])
            typer.echo(_describe_audit(plan, done, dry_run=dry_run))
    if not plans:
        typer.echo("the audit log is empty")


@asynccontextmanager
async def _audit_database(settings: Settings) -> AsyncIterator[Database]:
    url = settings.audit_database_url.get_secret_value() or settings.database_url.get_secret_value()
    async with _opened(url) as database:
        yield database


@asynccontextmanager
async def _opened(url: str) -> AsyncIterator[Database]:
    database = Database(url, pooled=True, pool_min=0, pool_max=1, timeout=TIMEOUT_SECONDS)
    await database.open()
    try:
        yield database
    except RetryLater as error:
        raise CompactionError(f"PostgreSQL at {database.address} {database.explain(error)}") from error
    finally:
        await database.close()


def _describe_history(plan: HistoryPlan, rows: int, *, dry_run: bool) -> str:
    verb = "would be deleted" if dry_run else "deleted"
    held = f"; later ones stay until {plan.held_by} has them" if plan.held_by else ""
    if not plan.revision:
        return f"0 changes {verb}{held}"
    return f"{rows} changes {verb}; the history is compacted up to revision {plan.revision}{held}"


def _describe_audit(plan: AuditPlan, rows: int, *, dry_run: bool) -> str:
    verb = "would be deleted" if dry_run else "deleted"
    return f"{rows} rows {verb}; the chain continues revision {plan.revision} (epoch {plan.epoch})"
