"""``pointsman xds clients``: who is connected by xDS, and what they refused."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Annotated

import typer

from pointsman import errors
from pointsman.cli.commands.xds.servers import Xds, connected, servers_of
from pointsman.cli.context import Json, Settings, settings
from pointsman.cli.output.terminal import Terminal
from pointsman.cli.output.text import time_text
from pointsman.cli.output.xds import clients_document, names_text, revision_of
from pointsman.xds.results import XdsClient, XdsClients

# New connections to each worker of a server, on average: enough for one to each, but in one of a million times.
_ATTEMPTS = 20
_COLUMNS = ("SERVER", "NODE", "KIND", "AGENT", "SUBJECT", "ADDRESS", "SINCE", "REVISION", "NAMES")


def clients(
    context: typer.Context,
    xds: Xds = [],  # noqa: B006 - typer makes a new one
    name: Annotated[
        str, typer.Option(help="Only clients that ask for a name that begins with this, as v2~prod~payments~team-a.")
    ] = "",
    as_json: Json = False,
) -> None:
    """List the gRPC clients and Envoys that are connected, with the revision that each has acknowledged.

    Each server knows its own clients: name all servers by --xds. Where a server has several workers, all of them are
    asked. For a response that a client refused, its error message is shown; the client keeps what it had before.
    """
    given = settings(context)
    terminal = given.terminal(as_json)
    found, problem = _ask(servers_of(xds, given), name, given, as_json)
    if terminal.as_json and found:
        terminal.document(
            {"servers": [{"server": server, **clients_document(workers)} for server, workers in found.items()]}
        )
    if not terminal.as_json:
        _show(terminal, found)
    if problem:
        raise problem


def _ask(
    servers: Iterable[str], name: str, given: Settings, as_json: bool
) -> tuple[dict[str, Sequence[XdsClients]], errors.PointsmanError | None]:
    """Return the clients of each server that answers, by its workers, and the first error of those that do not."""
    found: dict[str, Sequence[XdsClients]] = {}
    problem: errors.PointsmanError | None = None
    for server in servers:
        try:
            found[server] = _ask_workers(server, name, given, as_json)
        except errors.PointsmanError as error:
            if problem:
                problem.add_note(f"and {error.message}")
            problem = problem or error
    return found, problem


def _ask_workers(server: str, name: str, given: Settings, as_json: bool) -> Sequence[XdsClients]:
    """Return the clients of each worker of a server: the kernel leads each new connection to any of them."""
    workers: dict[str, XdsClients] = {}
    wanted = attempts = 1
    while len(workers) < wanted and attempts <= _ATTEMPTS * wanted:
        with connected(server, given, as_json) as service:
            found = service.clients(name_prefix=name)
        workers[found.worker], wanted = found, found.worker_count
        attempts += 1
    return tuple(workers.values())


def _show(terminal: Terminal, found: Mapping[str, Sequence[XdsClients]]) -> None:
    every = [(server, each) for server, workers in found.items() for each in workers]
    rows = [_row(server, each, client) for server, each in every for client in each.clients]
    if rows:
        terminal.table(_COLUMNS, rows)
    for _, each in every:
        for client in each.clients:
            for refusal in client.refusals:
                what = f"{client.node_id} refused {refusal.resource_type} at {time_text(refusal.time)}"
                terminal.line(f"{what}: {refusal.message}", "red")
    for server, workers in found.items():
        number = sum(len(each.clients) for each in workers)
        terminal.note(f"{server}: {_count(number)}, at revision {revision_of(workers)}")
        if len(workers) < (wanted := workers[-1].worker_count):
            answered = f"{len(workers)} of {wanted} workers answered"
            terminal.note(f"warning: {server}: {answered}; the clients of the others are not listed")


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
