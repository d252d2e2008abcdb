"""``pointsman top``: what a server does, live on a terminal."""

import os
import sys
from importlib.util import find_spec
from typing import Annotated

import typer

from pointsman.cli.context import Env, Service, Settings, Tenant, is_local, settings
from pointsman.cli.output.terminal import Color

METRICS_PORT = 9464


def top(
    context: typer.Context,
    metrics: Annotated[
        str,
        typer.Option(
            envvar="POINTSMAN_METRICS_URL",
            metavar="URL",
            help="The server's metrics; unset: port 9464 of this machine.",
        ),
    ] = "",
    tenant: Tenant = "",
    service: Service = "",
    env: Env = "",
    interval: Annotated[float, typer.Option(min=0.2, max=60, metavar="SECONDS", help="Between two readings.")] = 2.0,
) -> None:
    """Show rates, hit shares, lags, watchers and the latest changes of a server, live; q ends it.

    Rates, hit shares and lags are in the metrics of one server; changes and watchers come by gRPC. What is missing is
    named on the screen, and the rest goes on.
    """
    if find_spec("textual") is None:
        raise typer.BadParameter("it needs textual: run pip install 'pointsman[cli]'", param_hint="top")
    if not has_screen():
        raise typer.BadParameter("it needs a terminal: see pointsman watch, or the metrics", param_hint="top")
    options = settings(context)
    if options.color is Color.NEVER:
        os.environ["NO_COLOR"] = "1"
    # A fifth of a second, for this command alone.
    from pointsman.cli.top.screen import Top
    from pointsman.cli.top.sources import Sources, Wanted

    with options.client(False) as client:
        sources = Sources(client, metrics or default_metrics(options), Wanted(tenant, service, env, interval))
        Top(sources, options.server).run()


def default_metrics(options: Settings) -> str:
    """Return where the metrics of a server on this machine are; "" for another one, whose port is not known."""
    return f"http://localhost:{METRICS_PORT}/metrics" if is_local(options.server) else ""


def has_screen() -> bool:
    """Say whether there is a terminal to draw on, and to read keys from."""
    return sys.stdin.isatty() and sys.stderr.isatty()
