"""``pointsman apply``: make the routes be what a file says."""

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointsman.aio import AsyncClient
from pointsman.change_sets import ChangeSetResult
from pointsman.cli.bulk.apply import Applying, perform
from pointsman.cli.bulk.change_set import change_sets
from pointsman.cli.bulk.difference import AnyDifference, Difference, TrafficDifference, differences, traffic_differences
from pointsman.cli.commands.read import LARGEST_PAGE
from pointsman.cli.context import Json, Reason, Wait, closing, settings
from pointsman.cli.files.entries import Entry, checked
from pointsman.cli.files.problems import InvalidFile, Problem
from pointsman.cli.files.route_file import read_route_file
from pointsman.cli.files.source import read_text
from pointsman.cli.files.traffic_entries import TrafficEntry, checked_traffic
from pointsman.cli.output.documents import route_document, traffic_document
from pointsman.cli.output.effects import STYLES, needs_change_sets
from pointsman.cli.output.exit_codes import ExitCode
from pointsman.cli.output.prompts import confirm
from pointsman.cli.output.terminal import Terminal
from pointsman.cli.propagation import Waiting, waiting_time
from pointsman.errors import PermissionDenied
from pointsman.keys import FamilyKey, RouteKey
from pointsman.results import Route, Traffic

if TYPE_CHECKING:
    from pointsman.watchers import Propagation


@dataclass(frozen=True, slots=True)
class Desired:
    """What a file says. ``traffic`` is None where it does not say how calls are divided."""

    routes: Sequence[Entry]
    traffic: Sequence[TrafficEntry] | None
    tenants: Sequence[str]


@dataclass(frozen=True, slots=True)
class Current:
    """What the server has of the tenants of a file."""

    routes: Mapping[RouteKey, Route]
    traffic: Mapping[FamilyKey, Traffic]


def apply(
    context: typer.Context,
    file: Annotated[str, typer.Option("--file", "-f", metavar="FILE", help="YAML; - for standard input.")],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Show the difference, let the server check it, change nothing.")
    ] = False,
    detailed: Annotated[
        bool, typer.Option("--exit-code", help="With --dry-run: exit 10 if there is a difference.")
    ] = False,
    prune: Annotated[
        bool, typer.Option("--prune", help="Delete the routes and traffic of its tenants that it does not name.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", "-y", help="Prune without asking.")] = False,
    reason: Reason = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Make the routes be what a file says: `routes: [{key: a/b/c/v1, url: …, active: true, labels: {…}}]`.

    It may also say how calls are divided: `traffic: [{key: a/b/c, targets: {v1: 90%, v2: 10%}, fallbacks: [v0]}]`.
    Prints + to create, ~ to change, - to delete. What an entry leaves out stays as it is; a new route is active. All
    of it is one change set, made as a whole or not at all; of more than 1,000 changes there are several, one after
    another. --prune looks at the tenants that occur in the file, or at its `tenants: […]`.
    """
    if detailed and not dry_run:
        raise typer.BadParameter("only together with --dry-run", param_hint="--exit-code")
    seconds = waiting_time(wait, dry_run)
    terminal = settings(context).terminal(as_json)
    desired = _read(file)
    # Outside of the event loop, which a question would block, Ctrl-C included.
    with asyncio.Runner() as loop, closing(settings(context).async_client(as_json), loop) as client:
        with needs_change_sets():
            found = _compared(desired, loop.run(_current(client, desired.tenants)), prune)
            work = Applying(file, change_sets(found), reason, dry_run)
            if not terminal.as_json:
                _show(terminal, found, len(work.sets))
            if not dry_run:
                _confirm(found, yes)
            results = _made(lambda: loop.run(perform(client, work)), terminal, dry_run)
        waiting = Waiting(
            terminal, seconds, lambda revision, left: loop.run(_propagation(client, found, revision, left))
        )
        _summarize(terminal, found, results, dry_run)
        # Without a change there is no revision to wait for.
        last = 0 if dry_run else max((each.revision for each in results or ()), default=0)
        waiting.conclude(_document(found, results, dry_run), "", last)
    if detailed and found:
        raise typer.Exit(ExitCode.DIFFERENT)


def _made(make: Callable[[], list[ChangeSetResult]], terminal: Terminal, dry_run: bool) -> list[ChangeSetResult] | None:
    """Return what the change sets did; None if a dry run was not checked, as its caller may only read."""
    try:
        return make()
    except PermissionDenied as error:
        if not dry_run:
            raise
        terminal.note(f"not checked by the server: {error.message}")
        return None


def _read(file: str) -> Desired:
    """Return what a file says. Raises InvalidFile with every problem at once."""
    route_file = read_route_file(read_text(file))
    routes = list(checked(route_file.entries))
    traffic = None if route_file.traffic is None else list(checked_traffic(route_file.traffic))
    results = [*routes, *(traffic or ())]
    problems = [each for each in results if isinstance(each, Problem)]
    entries = [each for each in results if not isinstance(each, Problem)]
    if route_file.tenants is not None:
        problems += _outside(entries, route_file.tenants)
    if problems:
        raise InvalidFile(file, sorted(problems, key=lambda problem: problem.line))
    return Desired(
        [each for each in entries if isinstance(each, Entry)],
        None if traffic is None else [each for each in entries if isinstance(each, TrafficEntry)],
        route_file.tenants or list(dict.fromkeys(entry.key.tenant for entry in entries)),
    )


def _outside(entries: Iterable[Entry | TrafficEntry], tenants: Sequence[str]) -> list[Problem]:
    named = frozenset(tenants)
    return [
        Problem(entry.line, f"key: {entry.key} is of a tenant that `tenants` does not name")
        for entry in entries
        if entry.key.tenant not in named
    ]


async def _current(client: AsyncClient, tenants: Sequence[str]) -> Current:
    routes = {
        route.key: route for tenant in tenants async for route in client.list(tenant=tenant, page_size=LARGEST_PAGE)
    }
    traffic = {
        each.key: each
        for tenant in tenants
        async for each in client.list_traffic(tenant=tenant, page_size=LARGEST_PAGE)
    }
    return Current(routes, traffic)


def _compared(desired: Desired, current: Current, prune: bool) -> list[AnyDifference]:
    return [
        *differences(desired.routes, current.routes, prune=prune),
        *traffic_differences(desired.traffic, desired.routes, current.traffic, prune=prune),
    ]


async def _propagation(
    client: AsyncClient, found: Sequence[AnyDifference], revision: int, seconds_left: float
) -> "Propagation":
    """Ask who has the revision, among those who watch what the file is about."""
    tenants = {each.key.tenant for each in found}
    tenant = tenants.pop() if len(tenants) == 1 else ""
    return await client.get_propagation(revision, tenant=tenant, timeout=seconds_left)


def _show(terminal: Terminal, found: Sequence[AnyDifference], sets: int) -> None:
    for each in found:
        terminal.line(str(each), STYLES[each.sign])
    if sets > 1:
        terminal.note(f"too much for one change set: {sets} are made, each as a whole, one after another")


def _confirm(found: Sequence[AnyDifference], yes: bool) -> None:
    """Ask before something is deleted; without a terminal --yes is required."""
    gone = [each for each in found if each.after is None]
    if not gone:
        return
    what = _deleted_text(gone)
    confirm(f"{what} would be deleted", f"Delete {what}?", yes)


def _summarize(
    terminal: Terminal, found: Sequence[AnyDifference], results: Sequence[ChangeSetResult] | None, dry_run: bool
) -> None:
    if not found:
        terminal.note("nothing to do: all is as the file says")
        return
    verb = "to do" if dry_run else "done"
    counts = ", ".join(f"{name} {count}" for name, count in _counts(found).items())
    terminal.note(f"{verb}: {counts}{_sets_text(results, dry_run)}")


def _sets_text(results: Sequence[ChangeSetResult] | None, dry_run: bool) -> str:
    if dry_run:
        return "" if results is None else "; the server would accept it"
    names = [str(each.change_set_id) for each in results or () if each.change_set_id]
    if not names:
        return ""
    return f"; change set {names[0]}" if len(names) == 1 else f"; {len(names)} change sets, {names[0]} to {names[-1]}"


def _counts(found: Sequence[AnyDifference]) -> dict[str, int]:
    signs = [each.sign for each in found]
    return {"create": signs.count("+"), "change": signs.count("~"), "delete": signs.count("-")}


def _document(
    found: Sequence[AnyDifference], results: Sequence[ChangeSetResult] | None, dry_run: bool
) -> dict[str, Any]:
    return {
        "dry_run": dry_run,
        "summary": _counts(found),
        "differences": [_difference_document(each) for each in found],
        "change_sets": None
        if results is None
        else [{"change_set_id": each.change_set_id, "change_set_size": each.size} for each in results],
    }


def _difference_document(each: AnyDifference) -> dict[str, Any]:
    before, after = _route_documents(each) if isinstance(each, Difference) else _traffic_documents(each)
    action = {"+": "create", "~": "change", "-": "delete"}[each.sign]
    return {"action": action, "key": str(each.key), "before": before, "after": after}


def _route_documents(each: Difference) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    before, after = each.before, each.after
    wanted = {"url": after.url, "active": after.active, "labels": dict(after.labels)} if after else None
    return route_document(before) if before else None, wanted


def _traffic_documents(each: TrafficDifference) -> tuple[dict[str, Any] | None, dict[str, Any] | None]:
    before, after = each.before, each.after
    wanted = {"targets": _targets(after), "fallbacks": list(after.fallbacks)} if after else None
    return traffic_document(before) if before else None, wanted


def _targets(entry: TrafficEntry) -> list[dict[str, Any]]:
    return [{"version": version, "weight": weight} for version, weight in entry.weights.items()]


def _deleted_text(gone: Sequence[AnyDifference]) -> str:
    routes = sum(isinstance(each, Difference) for each in gone)
    traffic = len(gone) - routes
    parts = []
    if routes:
        parts.append("1 route" if routes == 1 else f"{routes} routes")
    if traffic:
        parts.append(f"the traffic of {traffic} {'service' if traffic == 1 else 'services'}")
    return " and ".join(parts)
