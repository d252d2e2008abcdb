"""``pointsman-server audit verify``: recompute the chain from what the database holds, and say what is wrong."""

import asyncio
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated

import typer

from pointsman_server.adapters.postgres.audit_log import PostgresAuditLog
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.lineage import PostgresLineage
from pointsman_server.audit.hash_chain import BrokenChain, Chain, Verifier
from pointsman_server.cli.common import fail, read_settings, require
from pointsman_server.config.settings import Settings
from pointsman_server.domain.errors import RetryLater
from pointsman_server.ports.audit_log import Span


class AuditUnavailable(Exception):
    """The audit log cannot be read; the text says where it is and why, and holds no secret."""


@dataclass(frozen=True, slots=True)
class Report:
    """What was found: the chains up to the first broken row, if any, and the revisions that the history knows.

    ``spans`` is None where the history cannot be read; then ``unknown`` says why.
    """

    chains: Sequence[Chain]
    broken: BrokenChain | None
    spans: Sequence[Span] | None
    unknown: str = ""

    @property
    def behind(self) -> int | None:
        """How many revisions of the history the chains do not cover. None where the history cannot be read."""
        if self.spans is None:
            return None
        last = {chain.epoch: chain.last for chain in self.chains if chain.head is not None}
        return sum(max(0, span.last - max(last.get(span.epoch, 0), span.first - 1)) for span in self.spans)


def verify(
    *,
    as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object.")] = False,
) -> None:
    """Recompute the hash chain of the audit log, and say how far it is.

    Ends with 1 when a row is not as it was written, and names the first one; also when the database is down.
    """
    settings = read_settings()
    require(settings, ())
    try:
        report = asyncio.run(_report(settings))
    except AuditUnavailable as error:
        fail(str(error))
    for line in [json.dumps(_to_json(report))] if as_json else _to_lines(report):
        typer.echo(line)
    raise typer.Exit(0 if report.broken is None else 1)


async def _report(settings: Settings) -> Report:
    timeout = settings.database_timeout_seconds
    url = settings.database_url.get_secret_value()
    store = Database(url, pooled=True, pool_min=0, pool_max=1, timeout=timeout)
    log = store
    if url := settings.audit_database_url.get_secret_value():
        log = Database(url, pooled=True, pool_min=0, pool_max=1, timeout=timeout)
    await store.open()
    try:
        chains, broken = await _check(log)
        spans, unknown = await _spans(store)
    finally:
        await store.close()
    return Report(chains, broken, spans, unknown)


async def _check(database: Database) -> tuple[Sequence[Chain], BrokenChain | None]:
    verifier = Verifier()
    try:
        async for entry in PostgresAuditLog(database).entries():
            verifier.feed(entry)
        verifier.finish()
    except BrokenChain as broken:
        return verifier.chains, broken
    except RetryLater as error:
        raise AuditUnavailable(_explain(database, error)) from error
    return verifier.chains, None


async def _spans(database: Database) -> tuple[Sequence[Span] | None, str]:
    # After the log was read, so that it is never ahead of what it is compared with.
    try:
        return await PostgresLineage(database).spans(), ""
    except RetryLater as error:
        return None, _explain(database, error)


def _explain(database: Database, error: RetryLater) -> str:
    return f"PostgreSQL at {database.address} {database.explain(error)}"


def _to_lines(report: Report) -> list[str]:
    lines = [_line(chain) for chain in report.chains] or ["0 rows"]
    if report.broken:
        lines.append(f"BROKEN at {report.broken}")
    if report.behind is None:
        lines.append(f"how far behind the chain is, is not known: {report.unknown}")
    else:
        clock = f", which is at {report.spans[-1].last}" if report.spans else ""
        lines.append(f"the chain is {report.behind} revisions behind the clock{clock}")
    return lines


def _line(chain: Chain) -> str:
    found = "0 rows"
    if chain.head is not None and chain.rows:
        found = f"{chain.rows} rows, revisions {chain.first} to {chain.last}, head {chain.head.hex()}"
    waiting = f"; {chain.waiting} more wait for the chain" if chain.waiting else ""
    return f"{found} (epoch {chain.epoch}){waiting}"


def _to_json(report: Report) -> dict[str, object]:
    broken = report.broken
    return {
        "ok": broken is None,
        "epochs": [
            {
                "epoch": chain.epoch,
                "rows": chain.rows,
                "first": chain.first,
                "last": chain.last,
                "head": chain.head.hex() if chain.head else None,
                "waiting": chain.waiting,
            }
            for chain in report.chains
        ],
        "broken": {"epoch": broken.epoch, "revision": broken.revision, "problem": broken.problem} if broken else None,
        "behind": report.behind,
    }
