"""``pointsman xds clients``: who is connected by xDS, and what they refused."""

from collections.abc import Iterable, Mapping
from typing import Annotated

import typer

from pointsman import errors
from pointsman.cli.commands.xds.servers import Xds, connected, servers_of
from pointsman.cli.context import Json, Settings, settings
from pointsman.cli.output.terminal import Terminal
from pointsman.cli.output.text import time_text
from pointsman.cli.output.xds import clients_document, names_text
from pointsman.xds.results import XdsClient, XdsClients

_COLUMNS = ("SERVER", "NODE", "KIND", "AGENT", "SUBJECT", "ADDRESS", "SINCE", "REVISION", "NAMES")


def clients(
    context: typer.Context,
    xds: Xds = [],  # noqa: B006 - typer makes a new one
    name: Annotated[
        str, typer.Option(help="Only clients that want a name that begins with this, as v2~prod~payments~team-a.")
    ] = "",
    as_json: Json = False,
) -> None:
    """List the gRPC clients and Envoys that are connected, with the revision that each has acknowledged.

    Each server knows its own clients: name all servers by --xds. A response that a client refused is told in its own
    words; the client goes on with what it had before.
    """
    given = settings(context)
    terminal = given.terminal(as_json)
    found, problem = _ask(servers_of(xds, given), name, given, as_json)
    if terminal.as_json and found:
        terminal.document({"servers": [{"server": server, **clients_document(each)} for server, each in found.items()]})
    if not terminal.as_json:
        _show(terminal, found)
    if problem:
        raise problem


def _ask(
    servers: Iterable[str], name: str, given: Settings, as_json: bool
) -> tuple[dict[str, XdsClients], errors.PointsmanError | None]:
    """Return the clients of each server that answers, and the first error of those that do not."""
    found: dict[str, XdsClients] = {}
    problem: errors.PointsmanError | None = None
    for server in servers:
        try:
            with connected(server, given, as_json) as service:
                found[server] = service.clients(name_prefix=name)
        except errors.PointsmanError as error:
            if problem:
                problem.add_note(f"and {error.message}")
            problem = problem or error
    return found, problem


def _show(terminal: Terminal, found: Mapping[str, XdsClients]) -> None:
    rows = [_row(server, each, client) for server, each in found.items() for client in each.clients]
    if rows:
        terminal.table(_COLUMNS, rows)
    for each in found.values():
        for client in each.clients:
            for refusal in client.refusals:
                what = f"{client.node_id} refused {refusal.resource_type} at {time_text(refusal.time)}"
                terminal.line(f"{what}: {refusal.message}", "red")
    for server, each in found.items():
        terminal.note(f"{server}: {_count(len(each.clients))}, at revision {each.revision}")


def _row(server: str, of: XdsClients, client: XdsClient) -> tuple[str, ...]:
    revision = str(client.acknowledged_revision or "none")
    behind = "" if client.acknowledged_revision >= of.revision else f" of {of.revision}"
    return (
        server,
        client.node_id,
        client.kind,
        client.user_agent,
        client.subject,
        client.address,
        time_text(client.connect_time),
        revision + behind,
        names_text(client.names, client.name_count),
    )


def _count(number: int) -> str:
    return "1 client" if number == 1 else f"{number} clients"
