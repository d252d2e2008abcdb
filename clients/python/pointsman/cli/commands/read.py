"""The commands that read routes: resolve, get, list."""

from typing import Annotated

import typer

from pointsman.cli.context import AsOf, Env, Json, Key, Service, Tenant, settings
from pointsman.cli.moments import moment_of
from pointsman.cli.output.documents import resolution_document, route_document
from pointsman.cli.output.text import labels_text, show_route, state_text
from pointsman.results import Consistency, Route

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


def get(context: typer.Context, key: Key, as_of: AsOf = "", as_json: Json = False) -> None:
    """Show a route, active or not, as the store has it, or as it was."""
    moment = moment_of(as_of)
    with settings(context).client(as_json) as client:
        route = client.get(key, as_of=moment)
    show_route(settings(context).terminal(as_json), route)


def list_routes(
    context: typer.Context,
    tenant: Tenant = "",
    service: Service = "",
    env: Env = "",
    active: Annotated[bool | None, typer.Option("--active/--inactive", help="Only these; unset: both.")] = None,
    as_of: AsOf = "",
    as_json: Json = False,
) -> None:
    """List the routes that match, in the order of their keys."""
    terminal = settings(context).terminal(as_json)
    moment = moment_of(as_of)
    with settings(context).client(as_json) as client:
        found = client.list(
            tenant=tenant, service=service, env=env, active=active, as_of=moment, page_size=LARGEST_PAGE
        )
        routes = list(found)
    if terminal.as_json:
        terminal.document([route_document(route) for route in routes])
    elif routes:
        terminal.table(("KEY", "URL", "STATE", "REVISION", "LABELS"), map(_route_row, routes))
    else:
        terminal.note("no routes match")


def _route_row(route: Route) -> tuple[str, ...]:
    return str(route.key), route.url, state_text(route.active), str(route.revision), labels_text(route.labels)
