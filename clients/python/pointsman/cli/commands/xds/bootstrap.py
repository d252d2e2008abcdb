"""``pointsman xds bootstrap``: what a client has to be told before it can ask a server by xDS."""

import json
import os
import shlex
import socket
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pointsman.cli.commands.xds.servers import Xds, servers_of
from pointsman.cli.context import Settings, settings
from pointsman.cli.output.streams import FileFailed, write_result
from pointsman.cli.output.terminal import Terminal
from pointsman.xds.bootstrap import Bootstrap, grpc_bootstrap
from pointsman.xds.options import Program, Upstreams, absolute, control_plane, node, token_problem

if TYPE_CHECKING:
    from pointsman.xds.options import ControlPlane

FILE_VARIABLE = "GRPC_XDS_BOOTSTRAP"

For = Annotated[Program, typer.Option("--for", help="The client that reads it.", show_default=False)]
Locality = Annotated[str, typer.Option(metavar="REGION[/ZONE[/SUB_ZONE]]", help="Where the client is.")]
HttpsCa = Annotated[
    Path | None,
    typer.Option(
        "--https-ca-file",
        metavar="FILE",
        help="PEM that the client trusts for https URLs, instead of the system's; Node must have one.",
        show_default=False,
    ),
]
Listen = Annotated[str, typer.Option(metavar="HOST:PORT", help="Of Envoy: where it listens; default 127.0.0.1:10000.")]
Families = Annotated[
    list[str],
    typer.Option(
        "--family",
        metavar="TENANT/SERVICE/ENV",
        help="Of Envoy: only these; any part may be *. May be given several times.",
    ),
]
Admin = Annotated[str, typer.Option(metavar="HOST:PORT", help="Of Envoy: its admin interface; default 127.0.0.1:9901.")]
Output = Annotated[
    Path | None, typer.Option("--output", "-o", metavar="FILE", help="Write it here.", show_default=False)
]


def bootstrap(
    context: typer.Context,
    program: For,
    xds: Xds = [],  # noqa: B006 - typer makes a new one
    node_id: Annotated[str, typer.Option(help="What the client is listed as; default: the host name.")] = "",
    locality: Locality = "",
    https_ca_file: HttpsCa = None,
    listen: Listen = "",
    family: Families = [],  # noqa: B006 - typer makes a new one
    admin: Admin = "",
    output: Output = None,
) -> None:
    """Print what makes a gRPC client or an Envoy follow the routes: its xDS bootstrap, as JSON.

    The options before the command say how to connect to xDS: --tls, --ca-file, --cert-file and --key-file,
    --token-file. gRPC clients read the file that GRPC_XDS_BOOTSTRAP names, Envoy the one after -c. Other environment
    variables that the client needs are listed on stderr.
    """
    upstreams = Upstreams(absolute("https_ca_file", https_ca_file), listen, tuple(family), admin)
    try:
        plane = _control_plane(settings(context), servers_of(xds, settings(context)))
        who = node(node_id or socket.gethostname(), locality)
        if program is Program.ENVOY:
            from pointsman.xds.envoy import envoy_bootstrap

            beside = os.path.abspath(output.with_suffix(".token.json")) if output else ""  # noqa: PTH100 - links stay
            made = envoy_bootstrap(plane, who, upstreams, beside)
        else:
            made = grpc_bootstrap(program, plane, who, upstreams)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint=f"--for {program}") from error
    for file, content in made.files.items():
        _write(_text(content), Path(file))
    _write(_text(made.document), output)
    terminal = settings(context).terminal(False)
    for file in (*plane.files(), *filter(None, [upstreams.ca_file])):
        _check(terminal, program, file, is_token=file == plane.token_file)
    _explain(terminal, program, made, output)


def _control_plane(given: Settings, servers: tuple[str, ...]) -> "ControlPlane":
    if given.token and not given.cert_file:
        raise ValueError("gRPC and Envoy read the token from a file: give --token-file instead of --token")
    return control_plane(
        servers,
        tls=given.tls,
        ca_file=given.ca_file,
        cert_file=given.cert_file,
        key_file=given.key_file,
        token_file=given.token_file,
    )


def _check(terminal: Terminal, program: Program, file: str, *, is_token: bool) -> None:
    """Say what is wrong with a file, as far as that can be seen here: the bootstrap may be for another machine."""
    try:
        problem = token_problem(program, Path(file).read_bytes()) if is_token else None
        missing = not Path(file).is_file()
    except OSError:
        problem, missing = None, True
    if missing:
        terminal.note(f"note: {file} is not on this machine: it must be on that of the client")
    if problem:
        terminal.note(f"warning: {file}: {problem}")


def _text(document: dict[str, Any]) -> str:
    return json.dumps(document, indent=2) + "\n"


def _write(text: str, output: Path | None) -> None:
    if output is None:
        write_result(text)
        return
    try:
        output.write_text(text)
    except OSError as error:
        raise FileFailed(f"{output} cannot be written: {error.strerror or type(error).__name__}") from error


def _explain(terminal: Terminal, program: Program, made: Bootstrap, output: Path | None) -> None:
    """Say on stderr what the document alone does not do."""
    variables = dict(made.environment)
    if output is not None and program is not Program.ENVOY:
        variables = {FILE_VARIABLE: os.path.abspath(output)} | variables  # noqa: PTH100 - links stay
    if variables:
        terminal.note("the client needs these environment variables:")
    for name, value in variables.items():
        terminal.note(f"export {name}={shlex.quote(value)}")
    for file in made.files:
        terminal.note(f"it refers to {file}, which is written, too")
    for note in made.notes:
        terminal.note(f"note: {note}")
