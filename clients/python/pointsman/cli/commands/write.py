"""The commands that change one route: create, update, activate, deactivate, delete."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Annotated, Any, NamedTuple
from uuid import uuid4

import typer

from pointsman.cli.context import Expected, Json, Key, Label, Reason, RequestId, Wait, labels_of, settings
from pointsman.cli.output.documents import route_document
from pointsman.cli.output.text import content_text
from pointsman.cli.propagation import Waiting, duration
from pointsman.client import Client
from pointsman.keys import as_key
from pointsman.results import Route

IfUnused = Annotated[
    str, typer.Option("--if-unused-for", metavar="TIME", help="Only if nobody has read it for so long, as 10m.")
]
Drained = Annotated[bool, typer.Option("--drain", help="First let its calls go elsewhere, until nobody reads it.")]
Url = Annotated[str, typer.Argument(metavar="URL", help="Absolute: scheme and host.", show_default=False)]


Ended = tuple[dict[str, Any], str, int]
"""What a change did: the document, the line for people, and the revision."""


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
        waiting.conclude(*_result("created", route))


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
        waiting.conclude(*_result("updated", route))


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
    if_unused_for: IfUnused = "",
    drain: Drained = False,
    reason: Reason = "",
    request_id: RequestId = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Take a route out of service; it stays known. No error if it is out already.

    With --drain the traffic gives it no more calls, and it is taken out once nobody has read it for a minute (or
    --if-unused-for); that is waited for up to 10 minutes (or --wait). Run again, it goes on where it was.
    """

    def end(client: Client, unused: timedelta | None, name: str) -> Ended:
        route = client.deactivate(
            key, expected_revision=expected_revision, if_unused_for=unused, request_id=name, reason=reason
        )
        return _result("deactivated", route)

    _end(context, Ending(key, False, if_unused_for, drain, reason, request_id, wait, as_json), end)


def delete(
    context: typer.Context,
    key: Key,
    expected_revision: Expected = 0,
    if_unused_for: IfUnused = "",
    drain: Drained = False,
    reason: Reason = "",
    request_id: RequestId = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Remove a route; its history stays. Refused while the traffic names it.

    With --drain it is taken out of the traffic, and removed once nobody reads it: see deactivate.
    """

    def end(client: Client, unused: timedelta | None, name: str) -> Ended:
        revision = client.delete(
            key, expected_revision=expected_revision, if_unused_for=unused, request_id=name, reason=reason
        )
        return {"key": key, "revision": revision}, f"deleted {key} at revision {revision}", revision

    _end(context, Ending(key, True, if_unused_for, drain, reason, request_id, wait, as_json), end)


class Ending(NamedTuple):
    """The options of what takes a route away."""

    key: str
    deletes: bool
    if_unused_for: str
    drain: bool
    reason: str
    request_id: str
    wait: str
    as_json: bool


def _end(context: typer.Context, options: Ending, end: Callable[[Client, timedelta | None, str], Ended]) -> None:
    """Take a route away, at once or by a drain."""
    unused = duration(options.if_unused_for, "--if-unused-for")
    with _changing(context, options.as_json, options.key, options.wait) as (client, waiting):
        if not options.drain:
            waiting.conclude(*end(client, None if unused is None else timedelta(seconds=unused), options.request_id))
            return
        # What most changes do without.
        from pointsman.cli.drain import UNUSED_SECONDS, WAIT_SECONDS, Drain, Draining

        wait, name = duration(options.wait) or WAIT_SECONDS, options.request_id or uuid4().hex
        drain = Drain(as_key(options.key), options.deletes, options.reason, unused or UNUSED_SECONDS, wait)
        terminal = settings(context).terminal(options.as_json)
        Draining(client, terminal, drain, lambda span: end(client, span, name)[:2]).run()


@contextmanager
def _changing(context: typer.Context, as_json: bool, key: str, wait: str) -> Iterator[tuple[Client, Waiting]]:
    """Connect, for a change of ``key``. An option that cannot be used is refused before anything is sent."""
    seconds, name = duration(wait), as_key(key)
    with settings(context).client(as_json) as client:
        ask = partial(client.get_propagation, tenant=name.tenant, service=name.service, env=name.env)
        terminal = settings(context).terminal(as_json)
        yield client, Waiting(terminal, seconds, lambda revision, timeout: ask(revision, timeout=timeout))


def _result(verb: str, route: Route) -> Ended:
    line = f"{verb} {route.key} at revision {route.revision}: {content_text(route)}"
    return route_document(route), line, route.revision
