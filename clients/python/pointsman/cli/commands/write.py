"""The commands that change one route: create, update, activate, deactivate, delete."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Annotated

import typer

from pointsman.cli.context import Expected, Json, Key, Label, Reason, RequestId, Wait, labels_of, settings
from pointsman.cli.output.documents import route_document
from pointsman.cli.output.text import content_text
from pointsman.cli.propagation import Waiting, duration
from pointsman.client import Client
from pointsman.keys import as_key
from pointsman.results import Route

Url = Annotated[str, typer.Argument(metavar="URL", help="Absolute: scheme and host.", show_default=False)]


def create(
    context: typer.Context,
    key: Key,
    url: Url,
    label: Label = [],  # noqa: B006 - typer reads it, and it is never changed
    inactive: Annotated[bool, typer.Option("--inactive", help="Known, but not live yet.")] = False,
    reason: Reason = "",
    request_id: RequestId = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Make a new route, live at once unless --inactive."""
    with _changing(context, as_json, key, wait) as (client, waiting):
        route = client.create(
            key, url, labels=labels_of(label), active=not inactive, reason=reason, request_id=request_id
        )
        _done(waiting, "created", route)


def update(
    context: typer.Context,
    key: Key,
    url: Annotated[str | None, typer.Option(help="The new URL.")] = None,
    label: Label = [],  # noqa: B006 - typer reads it, and it is never changed
    no_labels: Annotated[bool, typer.Option("--no-labels", help="Remove every label.")] = False,
    expected_revision: Expected = 0,
    allow_missing: Annotated[bool, typer.Option("--allow-missing", help="Create it, active, if absent.")] = False,
    reason: Reason = "",
    request_id: RequestId = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Change the URL or the labels of a route. The labels given replace all it has."""
    if label and no_labels:
        raise typer.BadParameter("not together with --label", param_hint="--no-labels")
    if url is None and not label and not no_labels:
        raise typer.BadParameter("nothing to update: give --url, --label or --no-labels", param_hint="--url")
    with _changing(context, as_json, key, wait) as (client, waiting):
        route = client.update(
            key,
            url=url,
            labels=labels_of(label) if label or no_labels else None,
            expected_revision=expected_revision,
            allow_missing=allow_missing,
            reason=reason,
            request_id=request_id,
        )
        _done(waiting, "updated", route)


def activate(
    context: typer.Context,
    key: Key,
    exclusive: Annotated[
        bool, typer.Option("--exclusive", help="Take every other version out of service, all at once.")
    ] = False,
    expected_revision: Expected = 0,
    reason: Reason = "",
    request_id: RequestId = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Make a route live; no error if it is."""
    with _changing(context, as_json, key, wait) as (client, waiting):
        activation = client.activate(
            key, exclusive=exclusive, expected_revision=expected_revision, reason=reason, request_id=request_id
        )
        route, revision = activation.route, activation.revision
        line = f"activated {key} at revision {revision}: {content_text(route)}"
        waiting.conclude({"route": route_document(route), "revision": revision}, line, revision)


def deactivate(
    context: typer.Context,
    key: Key,
    expected_revision: Expected = 0,
    reason: Reason = "",
    request_id: RequestId = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Take a route out of service; it stays known. No error if it is out already."""
    with _changing(context, as_json, key, wait) as (client, waiting):
        route = client.deactivate(key, expected_revision=expected_revision, reason=reason, request_id=request_id)
        _done(waiting, "deactivated", route)


def delete(
    context: typer.Context,
    key: Key,
    expected_revision: Expected = 0,
    reason: Reason = "",
    request_id: RequestId = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Remove a route; its history stays."""
    with _changing(context, as_json, key, wait) as (client, waiting):
        revision = client.delete(key, expected_revision=expected_revision, reason=reason, request_id=request_id)
        line = f"deleted {key} at revision {revision}"
        waiting.conclude({"key": key, "revision": revision}, line, revision)


@contextmanager
def _changing(context: typer.Context, as_json: bool, key: str, wait: str) -> Iterator[tuple[Client, Waiting]]:
    """Connect, for a change of ``key``. An option that cannot be used is refused before anything is sent."""
    seconds, name = duration(wait), as_key(key)
    with settings(context).client(as_json) as client:
        ask = partial(client.get_propagation, tenant=name.tenant, service=name.service, env=name.env)
        terminal = settings(context).terminal(as_json)
        yield client, Waiting(terminal, seconds, lambda revision, timeout: ask(revision, timeout=timeout))


def _done(waiting: Waiting, verb: str, route: Route) -> None:
    line = f"{verb} {route.key} at revision {route.revision}: {content_text(route)}"
    waiting.conclude(route_document(route), line, route.revision)
