"""``pointsman-server dev``: the server with embedded engines; prints commands to try."""

import json
import os
import signal
import subprocess
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from pointsman_server import embedded
from pointsman_server.cli.common import (
    HttpListen,
    Listen,
    LogLevel,
    Roles,
    Transport,
    XdsListen,
    configure_logs,
    fail,
    read_settings,
    require_secure,
)
from pointsman_server.cli.launch import launch
from pointsman_server.cli.main import STARTED
from pointsman_server.config.environment import as_environ, with_engines
from pointsman_server.config.names import READY_DESCRIPTOR
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import ServerRole
from pointsman_server.embedded.tied import tied_to_this_process
from pointsman_server.runtime import event_loop
from pointsman_server.telemetry import log_level as log_level_signal

DEMO_ROUTES = 240

ENGINES = {"database_url": "postgres", "redis_url": "redis", "kafka_bootstrap_servers": "kafka"}


def dev(
    *,
    listen: Listen = None,
    http_listen: HttpListen = None,
    xds_listen: XdsListen = None,
    transport: Transport = None,
    roles: Roles = None,
    log_level: LogLevel = None,
    data: Annotated[Path | None, typer.Option(help="Where the embedded engines keep their data.")] = None,
    fresh: Annotated[bool, typer.Option("--fresh", help="Drop the data of earlier runs first.")] = False,
    demo: Annotated[bool, typer.Option("--demo", help="Load a table of example routes.")] = False,
) -> None:
    """Run everything on this machine, with nothing to set up: PostgreSQL, Redis and Kafka come along.

    An engine whose URL is in the environment is used instead of the embedded one. All roles run, xds too, unless the
    roles are named.
    """
    flags = {
        "listen": listen,
        "http_listen": http_listen,
        "xds_listen": xds_listen,
        "transport": transport,
        "roles": roles,
        "log_level": log_level,
        "data_dir": data,
    }
    settings = read_settings(**flags)
    if "roles" not in settings.model_fields_set:
        settings = read_settings(**flags | {"roles": ",".join(ServerRole)})
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
        url = settings.database_session_url or settings.database_url
        migrate(url.get_secret_value(), settings.audit_database_url.get_secret_value())
        rewind = "KAFKA_BOOTSTRAP_SERVERS" in engines.urls
        event_loop.run(_prepare(settings, rewind=rewind, with_demo=with_demo))
        _serve(settings)


async def _prepare(settings: Settings, *, rewind: bool, with_demo: bool) -> None:
    """Do what comes before the server starts."""
    from pointsman_server.app.dependencies import Dependencies, make_monitor
    from pointsman_server.cli import demo_routes
    from pointsman_server.telemetry.metrics import Metrics
    from pointsman_server.writes.group_commit import GroupCommitter

    async with Dependencies(settings, Metrics()) as dependencies:
        await make_monitor(dependencies).round()
        if rewind:
            # The embedded Kafka keeps nothing between runs; what the audit log has not consumed is published again.
            await dependencies.relay_log.rewind(await dependencies.audit_log.last_contiguous())
        if with_demo:
            committer = GroupCommitter(
                dependencies.store, dependencies.cache, lambda _snapshots: None, log_changes=lambda _made: None
            )
            await demo_routes.load(committer, DEMO_ROUTES)


def _serve(settings: Settings) -> None:
    """Run ``serve`` until SIGTERM or SIGINT; end with its exit code if that is not 0. It ends with this process."""
    reading, writing = os.pipe()
    log_level_signal.block()
    # In its own session: Ctrl-C then reaches it once, through this process.
    server = subprocess.Popen(
        tied_to_this_process([sys.executable, "-m", "pointsman_server", "serve"]),
        env=os.environ | as_environ(settings) | {READY_DESCRIPTOR: str(writing)},
        pass_fds=[writing],
        start_new_session=True,
    )
    for name in (signal.SIGTERM, signal.SIGINT):
        signal.signal(name, lambda *_: server.terminate())
    signal.signal(log_level_signal.SIGNAL, lambda *_: server.send_signal(log_level_signal.SIGNAL))
    log_level_signal.unblock()
    os.close(writing)
    with open(reading) as ready:  # noqa: PTH123 - a descriptor has no path
        said = ready.read()
    if said:
        ports = json.loads(said)
        _greet(ports, settings.data_dir, time.monotonic() - STARTED)
    if code := server.wait():
        raise typer.Exit(code if code > 0 else 1)


def _greet(ports: dict[str, int], data_dir: Path, seconds: float) -> None:
    server, http = f"localhost:{ports['grpc_port']}", f"http://localhost:{ports['http_port']}"
    here = "" if ports["grpc_port"] == 50051 else f" --server {server}"
    xds = f", xDS on localhost:{ports['xds_port']}" if "xds_port" in ports else ""
    typer.echo(
        f"""
Pointsman is ready after {seconds:.1f} s: gRPC on {server}, metrics and health on {http}{xds}

  pointsman{here} create team-a/checkout/prod/v1 https://checkout-v1.team-a.internal:8443
  pointsman{here} resolve team-a/checkout/prod/v1
  pointsman{here} list
  grpcurl -plaintext {server} list
  grpcurl -plaintext -d '{{"key":{{"tenant":"team-a","service":"checkout","env":"prod","version":"v1"}}}}' \\
    {server} pointsman.v1.RouteService/Resolve
  curl -s {http}/health/ready

Ctrl-C stops it; the data stays in {data_dir}/ (--fresh drops it).
"""
    )
