"""``pointsman apply``: make the routes be what a file says."""

import asyncio
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointsman.aio import AsyncClient
from pointsman.cli.bulk.apply import perform
from pointsman.cli.bulk.difference import Difference, differences
from pointsman.cli.commands.read import LARGEST_PAGE
from pointsman.cli.context import Json, Reason, Wait, closing, settings
from pointsman.cli.files.entries import Entry, checked
from pointsman.cli.files.problems import InvalidFile, Problem
from pointsman.cli.files.route_file import read_route_file
from pointsman.cli.files.source import read_text
from pointsman.cli.output.documents import route_document
from pointsman.cli.output.exit_codes import ExitCode
from pointsman.cli.output.terminal import Terminal
from pointsman.cli.propagation import Waiting, duration
from pointsman.keys import RouteKey
from pointsman.results import Route

if TYPE_CHECKING:
    from pointsman.watchers import Propagation

_STYLES = {"+": "green", "~": "yellow", "-": "red"}


def apply(
    context: typer.Context,
    file: Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="YAML; - for standard input.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show the difference, change nothing.")] = False,
    detailed: Annotated[
        bool, typer.Option("--exit-code", help="With --dry-run: exit 10 if there is a difference.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete the routes of the file's tenants that it does not name.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Prune without asking.")] = False,
    reason: Reason = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Make the routes be what a file says: `routes: [{key: a/b/c/d, url: …, active: true, labels: {…}}]`.

    Prints + for each route to create, ~ to change, - to delete. What an entry leaves out stays as it is; a new
    route is active, without labels. --prune looks at the tenants that occur in the file, or at its `tenants: […]`.
    6,500 routes are one call, done as a whole or not at all, and deletions one each: after an error, run it again.
    """
    if detailed and not dry_run:
        raise typer.BadParameter("only together with --dry-run", param_hint="--exit-code")
    if wait and dry_run:
        raise typer.BadParameter("not together with --dry-run", param_hint="--wait")
    seconds = duration(wait)
    terminal = settings(context).terminal(as_json)
    entries, tenants = _read(file)
    # Outside of the event loop, which a question would block, Ctrl-C included.
    with asyncio.Runner() as loop, closing(settings(context).async_client(as_json), loop) as client:
        found = differences(entries, loop.run(_current(client, tenants)), prune=prune)
        if not terminal.as_json:
            _show(terminal, found)
        if not dry_run:
            _confirm(found, yes)
            loop.run(perform(client, found, reason))
        waiting = Waiting(
            terminal, seconds, lambda revision, left: loop.run(_propagation(client, found, revision, left))
        )
        _summarize(terminal, found, dry_run)
        # Without a change there is no revision to wait for.
        waiting.conclude(_document(found, dry_run), "", client.last_revision)
    if detailed and found:
        raise typer.Exit(ExitCode.DIFFERENT)


def _read(file: str) -> tuple[list[Entry], Sequence[str]]:
    """Return the entries of a file and the tenants it is about. Raises InvalidFile with every problem at once."""
    route_file = read_route_file(read_text(file))
    results = list(checked(route_file.entries))
    entries = [result for result in results if isinstance(result, Entry)]
    problems = [result for result in results if isinstance(result, Problem)]
    tenants = route_file.tenants
    if tenants is not None:
        named = frozenset(tenants)
        problems += [
            Problem(entry.line, f"key: {entry.key} is of a tenant that `tenants` does not name")
            for entry in entries
            if entry.key.tenant not in named
        ]
    if problems:
        raise InvalidFile(file, sorted(problems, key=lambda problem: problem.line))
    return entries, tenants if tenants is not None else list(dict.fromkeys(entry.key.tenant for entry in entries))


async def _current(client: AsyncClient, tenants: Sequence[str]) -> dict[RouteKey, Route]:
    return {
        route.key: route for tenant in tenants async for route in client.list(tenant=tenant, page_size=LARGEST_PAGE)
    }


async def _propagation(
    client: AsyncClient, found: Sequence[Difference], revision: int, seconds_left: float
) -> "Propagation":
    """Ask who has the revision, among those who watch what the file is about."""
    tenants = {each.key.tenant for each in found}
    tenant = tenants.pop() if len(tenants) == 1 else ""
    return await client.get_propagation(revision, tenant=tenant, timeout=seconds_left)


def _show(terminal: Terminal, found: Sequence[Difference]) -> None:
    for each in found:
        terminal.line(str(each), _STYLES[each.sign])


def _confirm(found: Sequence[Difference], yes: bool) -> None:
    """Ask before routes are deleted; without a terminal --yes is required."""
    count = sum(each.after is None for each in found)
    if not count or yes:
        return
    if not can_ask():
        raise typer.BadParameter(f"{_routes(count)} would be deleted, and there is no terminal to ask on: give --yes")
    typer.confirm(f"Delete {_routes(count)}?", abort=True, err=True)


def can_ask() -> bool:
    """Say whether a person can answer a question."""
    return sys.stdin.isatty()


def _summarize(terminal: Terminal, found: Sequence[Difference], dry_run: bool) -> None:
    if not found:
        terminal.note("nothing to do: all is as the file says")
    else:
        verb = "to do" if dry_run else "done"
        terminal.note(f"{verb}: " + ", ".join(f"{name} {count}" for name, count in _counts(found).items()))


def _counts(found: Sequence[Difference]) -> dict[str, int]:
    signs = [each.sign for each in found]
    return {"create": signs.count("+"), "change": signs.count("~"), "delete": signs.count("-")}


def _document(found: Sequence[Difference], dry_run: bool) -> dict[str, Any]:
    differences = [_difference_document(each) for each in found]
    return {"dry_run": dry_run, "summary": _counts(found), "differences": differences}


def _difference_document(each: Difference) -> dict[str, Any]:
    after = (
        {"url": each.after.url, "active": each.after.active, "labels": dict(each.after.labels)} if each.after else None
    )
    return {
        "action": {"+": "create", "~": "change", "-": "delete"}[each.sign],
        "key": str(each.key),
        "before": route_document(each.before) if each.before else None,
        "after": after,
    }


def _routes(count: int) -> str:
    return "1 route" if count == 1 else f"{count} routes"
