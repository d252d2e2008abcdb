"""The commands that only read: resolve, get, list, history."""

from itertools import islice
from typing import Annotated

import typer

from pointsman.cli.context import Env, Json, Key, Service, Tenant, settings
from pointsman.cli.output.documents import change_document, resolution_document, route_document
from pointsman.cli.output.text import difference_text, labels_text, show_route, state_text, time_text
from pointsman.keys import RouteKey
from pointsman.results import Change, Consistency, Route

LARGEST_PAGE = 1000


def resolve(
    context: typer.Context,
    key: Key,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say where the answer came from.")] = False,
    min_revision: Annotated[int, typer.Option(min=0, help="As of this revision or later.")] = 0,
    consistency: Annotated[Consistency, typer.Option(help="How new the answer must be.")] = (
        Consistency.MINIMIZE_LATENCY
    ),
    as_json: Json = False,
) -> None:
    """Print the live URL of a key, and nothing else."""
    terminal = settings(context).terminal(as_json)
    with settings(context).client(as_json) as client:
        resolution = client.resolve(key, min_revision=min_revision, consistency=consistency)
    if terminal.as_json:
        terminal.document(resolution_document(resolution))
        return
    terminal.line(resolution.url)
    if verbose:
        age = f"{resolution.age.total_seconds():.3f} s"
        terminal.note(f"source {resolution.source}, age {age}, as of revision {resolution.as_of_revision}")


def get(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Show a route, active or not, as the store has it."""
    with settings(context).client(as_json) as client:
        route = client.get(key)
    show_route(settings(context).terminal(as_json), route)


def list_routes(
    context: typer.Context,
    tenant: Tenant = "",
    service: Service = "",
    env: Env = "",
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Only these; unset: both.")] = None,
    as_json: Json = False,
) -> None:
    """List the routes that match, in the order of their keys."""
    terminal = settings(context).terminal(as_json)
    with settings(context).client(as_json) as client:
        routes = list(client.list(tenant=tenant, service=service, env=env, active=active, page_size=LARGEST_PAGE))
    if terminal.as_json:
        terminal.document([route_document(route) for route in routes])
    elif routes:
        terminal.table(("KEY", "URL", "STATE", "REVISION", "LABELS"), map(_route_row, routes))
    else:
        terminal.note("no routes match")


def history(
    context: typer.Context,
    key: Annotated[str | None, typer.Argument(metavar="[KEY]", help="tenant/service/env/version")] = None,
    tenant: Tenant = "",
    service: Service = "",
    env: Env = "",
    actor: Annotated[str, typer.Option(help="Only changes by this actor.")] = "",
    after_revision: Annotated[int, typer.Option(min=0, help="Only later changes.")] = 0,
    before_revision: Annotated[int, typer.Option(min=0, help="Only earlier changes; 0: no limit.")] = 0,
    newest_first: Annotated[bool, typer.Option("--newest-first/--oldest-first")] = True,
    limit: Annotated[int, typer.Option(min=0, help="At most this many; 0: all.")] = 50,
    as_json: Json = False,
) -> None:
    """Show who changed what, when and why."""
    if key and (tenant or service or env):
        raise typer.BadParameter("give KEY, or --tenant, --service and --env, not both", param_hint="KEY")
    terminal = settings(context).terminal(as_json)
    wanted = RouteKey.parse(key) if key else RouteKey(tenant, service, env, "")
    with settings(context).client(as_json) as client:
        found = client.changes(
            tenant=wanted.tenant,
            service=wanted.service,
            env=wanted.env,
            version=wanted.version,
            actor=actor,
            after_revision=after_revision,
            before_revision=before_revision,
            newest_first=newest_first,
            page_size=min(limit or LARGEST_PAGE, LARGEST_PAGE),
        )
        changes = list(islice(found, limit or None))
    if terminal.as_json:
        terminal.document([change_document(change) for change in changes])
    elif changes:
        terminal.table(("REVISION", "TIME", "KIND", "KEY", "ACTOR", "CHANGE", "REASON"), map(_change_row, changes))
    else:
        terminal.note("no changes match")


def _route_row(route: Route) -> tuple[str, ...]:
    return str(route.key), route.url, state_text(route.active), str(route.revision), labels_text(route.labels)


def _change_row(change: Change) -> tuple[str, ...]:
    return (
        str(change.revision),
        time_text(change.occur_time),
        change.kind,
        str(change.key),
        change.actor,
        difference_text(change.before, change.after),
        change.reason,
    )
