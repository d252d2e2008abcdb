"""``pointsman-server dev``: the server with embedded engines; prints commands to try."""

import asyncio
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from pointsman_server import embedded
from pointsman_server.cli.common import (
    HttpListen,
    Listen,
    LogLevel,
    Roles,
    Transport,
    configure_logs,
    fail,
    read_settings,
    require_secure,
)
from pointsman_server.cli.launch import launch
from pointsman_server.cli.main import STARTED
from pointsman_server.config.environment import with_engines
from pointsman_server.config.settings import Settings

if TYPE_CHECKING:
    from pointsman_server.app.application import App

DEMO_ROUTES = 240

ENGINES = {"database_url": "postgres", "redis_url": "redis", "kafka_bootstrap_servers": "kafka"}


def dev(
    *,
    listen: Listen = None,
    http_listen: HttpListen = None,
    transport: Transport = None,
    roles: Roles = None,
    log_level: LogLevel = None,
    data: Annotated[Path | None, typer.Option(help="Where the embedded engines keep their data.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop the data of earlier runs first.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Load a table of example routes.")] = False,
) -> None:
    """Run everything on this machine, with nothing to set up: PostgreSQL, Redis and Kafka come along.

    An engine whose URL is in the environment is used instead of the embedded one.
    """
    settings = read_settings(
        listen=listen,
        http_listen=http_listen,
        transport=transport,
        roles=roles,
        log_level=log_level,
        data_dir=data,
    )
    require_secure(settings)
    configure_logs(settings)
    # The engines start while the drivers are imported, which takes about as long.
    with ThreadPoolExecutor(1) as pool:
        starting = pool.submit(embedded.start, settings.data_dir, _missing_engines(settings), fresh=fresh)
        from pointsman_server.adapters.postgres.migrations import MigrationError

        try:
            launch(partial(_run, settings, starting, with_demo=demo), with_kafka=True)
        except MigrationError as error:
            fail(str(error))


def _missing_engines(settings: Settings) -> list[str]:
    """Name the engines that no URL is set for."""
    return [engine for name, engine in ENGINES.items() if not getattr(settings, name)]


def _run(settings: Settings, starting: Future[embedded.Engines], *, with_demo: bool) -> None:
    """Serve with the engines until SIGTERM or SIGINT.

    Raises ListenError and EngineError; MigrationError when a database that the environment names is down.
    """
    engines = starting.result()
    from pointsman_server.adapters.postgres.migrations import migrate

    with engines:
        settings = with_engines(settings, {name.lower(): url for name, url in engines.urls.items()})
        migrate(settings.database_url.get_secret_value(), settings.audit_database_url.get_secret_value())
        rewind = "KAFKA_BOOTSTRAP_SERVERS" in engines.urls
        asyncio.run(_serve(settings, rewind=rewind, with_demo=with_demo))


async def _serve(settings: Settings, *, rewind: bool, with_demo: bool) -> None:
    from pointsman_server.app.application import serve
    from pointsman_server.cli import demo_routes

    async def prepare(app: "App") -> None:
        if rewind:
            # The embedded Kafka keeps nothing between runs; what the audit log has not consumed is published again.
            await app.dependencies.relay_log.rewind(await app.dependencies.audit_log.last_contiguous())
        if with_demo:
            await demo_routes.load(app.committer, DEMO_ROUTES)

    await serve(settings, lambda app: _greet(app, time.monotonic() - STARTED), prepare)


def _greet(app: "App", seconds: float) -> None:
    server = f"localhost:{app.grpc_server.port}"
    here = "" if app.grpc_server.port == 50051 else f" --server {server}"
    typer.echo(
        f"""
Pointsman is ready after {seconds:.1f} s: gRPC on {server}, metrics and health on http://localhost:{app.http_port}

  pointsman{here} create team-a/checkout/prod/v1 https://checkout-v1.team-a.internal:8443
  pointsman{here} resolve team-a/checkout/prod/v1
  pointsman{here} list
  grpcurl -plaintext {server} list
  grpcurl -plaintext -d '{{"key":{{"tenant":"team-a","service":"checkout","env":"prod","version":"v1"}}}}' \\
    {server} pointsman.v1.RouteService/Resolve
  curl -s http://localhost:{app.http_port}/health/ready

Ctrl-C stops it; the data stays in {app.settings.data_dir}/ (--fresh drops it).
"""
    )
