"""``pointsman-server dev``: the server with engines of its own, and a word on what to type next."""

import asyncio
import time
from typing import TYPE_CHECKING

import typer

from pointsman_server.config.settings import Settings
from pointsman_server.embedded import Engines

if TYPE_CHECKING:
    from pointsman_server.app.application import App

DEMO_ROUTES = 240

ENGINES = {"database_url": "postgres", "redis_url": "redis", "kafka_bootstrap_servers": "kafka"}


def missing_engines(settings: Settings) -> list[str]:
    """Name the engines that no URL is set for."""
    return [engine for name, engine in ENGINES.items() if not getattr(settings, name)]


def run(settings: Settings, engines: Engines, started: float, *, with_demo: bool) -> None:
    """Serve with ``engines`` until SIGTERM or SIGINT. ``started``: when the process began, in monotonic seconds.

    Raises ListenError, and MigrationError when a database of the caller's is down.
    """
    from pointsman_server.adapters.postgres.migrations import migrate

    with engines:
        settings = settings.with_engines({name.lower(): url for name, url in engines.urls.items()})
        migrate(settings.database_url.get_secret_value(), settings.audit_database_url.get_secret_value())
        rewind = "KAFKA_BOOTSTRAP_SERVERS" in engines.urls
        asyncio.run(_serve(settings, started, rewind=rewind, with_demo=with_demo))


async def _serve(settings: Settings, started: float, *, rewind: bool, with_demo: bool) -> None:
    from pointsman_server.app.application import serve
    from pointsman_server.cli import demo_routes

    async def prepare(app: "App") -> None:
        if rewind:
            # The embedded Kafka forgets everything; what the audit log has not seen must be published again.
            await app.dependencies.relay_log.rewind(await app.dependencies.audit_log.last_contiguous())
        if with_demo:
            await demo_routes.load(app.committer, DEMO_ROUTES)

    await serve(settings, lambda app: _greet(app, time.monotonic() - started), prepare)


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
