"""``pointsman import``: many routes from a file, in chunks; a bad row stops no other."""

import asyncio
import re
import time
from dataclasses import asdict
from typing import Annotated, Any
from uuid import uuid4

import typer
from rich.progress import Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from pointsman import chunks
from pointsman.aio import AsyncClient
from pointsman.cli.bulk.import_rows import FailedRow, Plan, Report, import_rows
from pointsman.cli.context import Json, Reason, Wait, closing, settings
from pointsman.cli.files.entries import checked
from pointsman.cli.files.formats import Format, format_of, read_rows
from pointsman.cli.files.problems import place
from pointsman.cli.files.source import open_text
from pointsman.cli.output.exit_codes import ExitCode
from pointsman.cli.output.terminal import Terminal
from pointsman.cli.propagation import Waiting, duration
from pointsman.results import Existing

RUN = r"[A-Za-z0-9._-]{1,39}"


def import_routes(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML, JSON lines or CSV; - for standard input.")],
    kind: Annotated[Format | None, typer.Option("--format", help="Unset: by the suffix of FILE.")] = None,
    existing: Annotated[
        Existing, typer.Option(help="What becomes of routes that exist; refuse: such a row has failed.")
    ] = Existing.UPDATE,
    concurrency: Annotated[
        int, typer.Option(min=1, max=64, help="Calls under way at once, of up to 6,500 rows each.")
    ] = chunks.CONCURRENCY,
    resume: Annotated[
        str, typer.Option(metavar="RUN", help="Go on with a run of the same file, named by what it printed.")
    ] = "",
    reason: Reason = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Create many routes, and change those that exist; safe to run again.

    CSV names its columns: key (or tenant,service,env,version), url, and if wanted active (true/false) and labels
    (a=1;b=2). Up to 6,500 rows are one call, done as a whole or not at all. A bad row is reported with its line and
    does not stop the others; exit 1 if any failed. After a failure --resume skips, for 24 hours, what was done.
    """
    found = kind or format_of(file)
    if found is None:
        raise typer.BadParameter("the name does not tell the format: give yaml, jsonl or csv", param_hint="--format")
    if resume and not re.fullmatch(RUN, resume):
        raise typer.BadParameter("must be 1 to 39 characters of A-Z a-z 0-9 . _ -", param_hint="--resume")
    seconds = duration(wait)
    terminal = settings(context).terminal(as_json)
    plan = Plan(resume or uuid4().hex, existing, reason, concurrency)
    terminal.note(f"run {plan.run}")
    begun = time.monotonic()
    with asyncio.Runner() as loop, closing(settings(context).async_client(as_json), loop) as client:
        report = loop.run(_import(client, terminal, file, found, plan))
        _summarize(terminal, file, plan.run, report, time.monotonic() - begun)
        waiting = Waiting(
            terminal, seconds, lambda number, left: loop.run(client.get_propagation(number, timeout=left))
        )
        try:
            waiting.conclude(_document(plan, report), "", report.result.revision)
        except typer.Exit:
            if not report.failed:
                raise
    if report.failed:
        raise typer.Exit(ExitCode.FAILED)


async def _import(client: AsyncClient, terminal: Terminal, file: str, kind: Format, plan: Plan) -> Report:
    with _bar(terminal) as bar, open_text(file) as text:
        task = bar.add_task("import", total=None)
        rows = checked(read_rows(file, text, kind))
        return await import_rows(client, rows, plan, lambda count: bar.advance(task, count))


def _bar(terminal: Terminal) -> Progress:
    columns = SpinnerColumn(), TextColumn("{task.completed:,.0f} rows"), TimeElapsedColumn()
    return Progress(*columns, console=terminal.err, transient=True, disable=not terminal.err.is_terminal)


def _summarize(terminal: Terminal, file: str, run: str, report: Report, seconds: float) -> None:
    total = report.result.total + report.failures
    for row in report.failed:
        terminal.note(_failure_text(file, row))
    if report.failed:
        terminal.note(f"to go on with what has failed, once it is mended: --resume {run}")
    if terminal.as_json:
        return
    parts = [*_counts(report).items(), ("failed", report.failures)]
    terminal.line(f"{total} rows: " + ", ".join(f"{count} {name}" for name, count in parts))
    terminal.note(f"{seconds:.1f} s, {total / max(seconds, 0.001):,.0f} rows a second")


def _document(plan: Plan, report: Report) -> dict[str, Any]:
    result = report.result
    rest = {"failed": [asdict(row) for row in report.failed], "run": plan.run, "revision": result.revision}
    return {"total": result.total + report.failures, **_counts(report), **rest}


def _counts(report: Report) -> dict[str, int]:
    result = report.result
    return {"created": result.created, "updated": result.updated, "unchanged": result.unchanged}


def _failure_text(file: str, row: FailedRow) -> str:
    others = f"and {row.rows - 1} rows after it:" if row.rows > 1 else ""
    return " ".join(filter(None, (f"{place(file, row.line)}:", row.key, others, f"{row.message} ({row.reason})")))
