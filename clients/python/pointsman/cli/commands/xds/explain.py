"""``pointsman xds explain``: what xDS clients are sent for a name, and why."""

import json
import re
from enum import StrEnum
from typing import Annotated

import grpc
import typer

from pointsman.cli.commands.xds.servers import Xds, ask_any, servers_of
from pointsman.cli.context import Json, settings
from pointsman.cli.output.terminal import Terminal
from pointsman.cli.output.text import show_fields
from pointsman.cli.output.xds import explanation_document
from pointsman.xds.results import ClientKind, XdsExplanation

_TITLES = {ClientKind.GRPC: "gRPC clients", ClientKind.ENVOY: "Envoy"}
_TARGET = re.compile(r"^xds:(//[^/]*/)?")


class Kind(StrEnum):
    """What ``--kind`` may be."""

    GRPC = ClientKind.GRPC.value
    ENVOY = ClientKind.ENVOY.value


def explain(
    context: typer.Context,
    key: Annotated[
        str,
        typer.Argument(
            metavar="KEY",
            help="tenant/service/env, with or without /version; or the target of a client",
            show_default=False,
        ),
    ],
    xds: Xds = [],  # noqa: B006 - typer makes a new one
    kind: Annotated[Kind | None, typer.Option(help="The kind of client; default: both.", show_default=False)] = None,
    resources: Annotated[bool, typer.Option("--resources", help="Print the resources as they are sent, too.")] = False,
    as_json: Json = False,
) -> None:
    """Say what gRPC clients and Envoys get for a name: the status of their calls, why, and what they cannot carry."""
    given = settings(context)
    terminal = given.terminal(as_json)
    wanted = ClientKind.UNKNOWN if kind is None else ClientKind(kind.value)
    found = ask_any(servers_of(xds, given), given, as_json, lambda service: service.explain(_name(key), kind=wanted))
    if terminal.as_json:
        terminal.document({"key": key, **explanation_document(found, resources=resources)})
        return
    show_fields(terminal, {"name": found.name, "as of": f"revision {found.revision}"})
    for each in found.explanations:
        terminal.line("")
        _show(terminal, each, resources=resources)


def _name(text: str) -> str:
    """Return the name in the target of a channel, and any other text as it is."""
    return _TARGET.sub("", text, count=1)


def _show(terminal: Terminal, explanation: XdsExplanation, *, resources: bool) -> None:
    terminal.line(_TITLES.get(explanation.kind, "other clients"))
    passed = explanation.status is grpc.StatusCode.OK
    fields = {"calls": "pass" if passed else f"end with {explanation.status.name}", "why": explanation.reason}
    show_fields(terminal, {name: text for name, text in fields.items() if text})
    for limitation in explanation.limitations:
        terminal.line(f"{'but':<10}{limitation}")
    for resource in explanation.resources if resources else ():
        for line in json.dumps(resource, indent=2, sort_keys=True).splitlines():
            terminal.line(line)
