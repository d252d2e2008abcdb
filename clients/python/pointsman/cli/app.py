"""The application: the global options, and every command under its name."""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, ClassVar

import typer

from pointsman.cli.context import Json, Settings, one_token, said, settings
from pointsman.cli.output.errors import ReportingGroup
from pointsman.cli.output.exit_codes import HELP
from pointsman.cli.output.terminal import Color
from pointsman.rpc.session import DEFAULT_TIMEOUT
from pointsman.version import client_version


class Commands(ReportingGroup):
    """Every command, and where it is."""

    homes: ClassVar[Mapping[str, str]] = {
        "version": "pointsman.cli.app:version",
        "resolve": "pointsman.cli.commands.read:resolve",
        "get": "pointsman.cli.commands.read:get",
        "list": "pointsman.cli.commands.read:list_routes",
        "select": "pointsman.cli.commands.select:select",
        "explain": "pointsman.cli.commands.explain:explain",
        "diff": "pointsman.cli.commands.diff:diff",
        "history": "pointsman.cli.commands.history:history",
        "who": "pointsman.cli.commands.who:who",
        "watch": "pointsman.cli.commands.watch:watch",
        "top": "pointsman.cli.commands.top:top",
        "create": "pointsman.cli.commands.write:create",
        "update": "pointsman.cli.commands.write:update",
        "activate": "pointsman.cli.commands.write:activate",
        "deactivate": "pointsman.cli.commands.write:deactivate",
        "delete": "pointsman.cli.commands.write:delete",
        "traffic": "pointsman.cli.commands.traffic.group:TrafficCommands",
        "xds": "pointsman.cli.commands.xds.group:XdsCommands",
        "apply": "pointsman.cli.commands.apply:apply",
        "revert": "pointsman.cli.commands.revert:revert",
        "import": "pointsman.cli.commands.import_routes:import_routes",
    }


app = typer.Typer(
    name="pointsman",
    cls=Commands,
    help="Ask and change which URL is live for tenant / service / env / version.",
    epilog=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,  # it would print the values of variables, tokens included
    context_settings={"help_option_names": ["-h", "--help"]},
)


@app.callback()
def options(
    context: typer.Context,
    server: Annotated[str, typer.Option(envvar="POINTSMAN_SERVER", metavar="HOST:PORT")] = "localhost:50051",
    timeout: Annotated[
        float, typer.Option(envvar="POINTSMAN_TIMEOUT", min=0.001, max=3600, metavar="SECONDS", help="For each call.")
    ] = DEFAULT_TIMEOUT,
    as_json: Json = False,
    color: Annotated[Color, typer.Option(help="When to use colour.")] = Color.AUTO,
    token: Annotated[
        str | None,
        typer.Option(
            envvar="POINTSMAN_TOKEN",
            metavar="TOKEN",
            help="A bearer token or an API key; better set the variable, or give a file.",
            show_default=False,
        ),
    ] = None,
    token_file: Annotated[
        Path | None,
        typer.Option(envvar="POINTSMAN_TOKEN_FILE", metavar="FILE", help="Holds the token, instead of --token."),
    ] = None,
    tls: Annotated[bool, typer.Option("--tls", envvar="POINTSMAN_TLS", help="Connect by TLS.")] = False,
    plaintext: Annotated[
        bool, typer.Option("--plaintext", help="Connect without TLS on purpose, as POINTSMAN_TLS=false does.")
    ] = False,
    ca_file: Annotated[
        Path | None,
        typer.Option(
            envvar="POINTSMAN_CA_FILE", metavar="FILE", help="PEM to trust instead of the system's; implies TLS."
        ),
    ] = None,
    cert_file: Annotated[
        Path | None,
        typer.Option(envvar="POINTSMAN_CERT_FILE", metavar="FILE", help="PEM: who the caller is; implies TLS."),
    ] = None,
    key_file: Annotated[
        Path | None, typer.Option(envvar="POINTSMAN_KEY_FILE", metavar="FILE", help="PEM: the key of --cert-file.")
    ] = None,
) -> None:
    """Keep the global options for the command."""
    bearer = one_token(context, token, token_file)
    by_tls = said(context, tls, plaintext)
    context.obj = Settings(server, timeout, as_json, color, *bearer, by_tls, ca_file, cert_file, key_file)


def version(context: typer.Context, as_json: Json = False) -> None:
    """Print the version of this client."""
    terminal = settings(context).terminal(as_json)
    if terminal.as_json:
        terminal.document({"version": client_version()})
    else:
        terminal.line(f"pointsman {client_version()}")
