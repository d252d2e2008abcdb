"""``pointsman import``: many routes from a file, each row on its own."""

import asyncio
from collections.abc import Sequence
from dataclasses import asdict
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from pointsman.cli.bulk import FailedRow, ImportResult, import_rows
from pointsman.cli.context import Json, Reason, Settings, settings
from pointsman.cli.entries import Entry, checked
from pointsman.cli.exits import ExitCode
from pointsman.cli.inputs import read_text
from pointsman.cli.problems import Problem, place
from pointsman.cli.rows import Format, format_of, read_rows
from pointsman.cli.terminal import Terminal


def import_routes(
    context: typer.Context,
    file: Annotated[str, typer.Argument(metavar="FILE", help="YAML, JSON lines or CSV; - for standard input.")],
    kind: Annotated[Format | None, typer.Option("--format", help="Unset: by the suffix of FILE.")] = None,
    concurrency: Annotated[int, typer.Option(min=1, max=256, help="Rows under way at once.")] = 16,
    reason: Reason = "",
    as_json: Json = False,
) -> None:
    """Create many routes, and change those that exist; safe to run again.

    CSV names its columns: key (or tenant,service,env,version), url, and if wanted active (true/false) and labels
    (a=1;b=2). A bad row is reported with its line and does not stop the others; exit 1 if any failed.
    """
    found = kind or format_of(file)
    if found is None:
        raise typer.BadParameter("the name does not tell the format: give yaml, jsonl or csv", param_hint="--format")
    terminal = settings(context).terminal(as_json)
    rows = list(checked(read_rows(file, read_text(file), found)))
    result = asyncio.run(_import(settings(context), terminal, rows, concurrency, reason))
    _summarize(terminal, file, len(rows), result)
    if result.failed:
        raise typer.Exit(ExitCode.FAILED)


async def _import(
    options: Settings, terminal: Terminal, rows: Sequence[Entry | Problem], concurrency: int, reason: str
) -> ImportResult:
    with _bar(terminal) as bar:
        task = bar.add_task("import", total=len(rows))
        async with options.async_client(terminal.as_json) as client:
            return await import_rows(
                client, rows, concurrency=concurrency, reason=reason, advance=lambda: bar.advance(task)
            )


def _bar(terminal: Terminal) -> Progress:
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    return Progress(*columns, console=terminal.err, transient=True, disable=not terminal.err.is_terminal)


def _summarize(terminal: Terminal, file: str, total: int, result: ImportResult) -> None:
    counts = {outcome.value: count for outcome, count in result.counts.items()}
    if terminal.as_json:
        terminal.document({"total": total, **counts, "failed": [asdict(row) for row in result.failed]})
        return
    for row in result.failed:
        terminal.note(_failure_text(file, row))
    parts = [*counts.items(), ("failed", len(result.failed))]
    terminal.line(f"{total} rows: " + ", ".join(f"{count} {name}" for name, count in parts))


def _failure_text(file: str, row: FailedRow) -> str:
    return " ".join(filter(None, (f"{place(file, row.line)}:", row.key, f"{row.message} ({row.reason})")))
