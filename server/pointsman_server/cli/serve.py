"""``pointsman-server serve``: one server process, or several that share a port."""

from functools import partial
from typing import Annotated

import typer

from pointsman_server.cli.common import (
    HttpListen,
    Listen,
    LogLevel,
    Roles,
    Transport,
    XdsListen,
    fail,
    read_settings,
    require,
    require_secure,
)
from pointsman_server.cli.launch import launch, start_errors
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import CALLED, ServerRole
from pointsman_server.runtime import event_loop
from pointsman_server.telemetry import log_level as log_level_signal
from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)


def serve(
    *,
    listen: Listen = None,
    http_listen: HttpListen = None,
    xds_listen: XdsListen = None,
    workers: Annotated[int | None, typer.Option(help="Processes that share the gRPC ports.")] = None,
    transport: Transport = None,
    roles: Roles = None,
    log_level: LogLevel = None,
    allow_anonymous: Annotated[
        bool, typer.Option("--allow-anonymous", help="Listen beyond loopback without authentication.")
    ] = False,
    allow_plaintext: Annotated[
        bool, typer.Option("--allow-plaintext", help="Listen beyond loopback without TLS, as behind a mesh.")
    ] = False,
) -> None:
    """Run a server with the engines of DATABASE_URL, REDIS_URL and KAFKA_BOOTSTRAP_SERVERS."""
    settings = read_settings(
        listen=listen,
        http_listen=http_listen,
        xds_listen=xds_listen,
        workers=workers,
        transport=transport,
        roles=roles,
        log_level=log_level,
        allow_anonymous=allow_anonymous or None,
        allow_plaintext=allow_plaintext or None,
    )
    require(settings)
    require_secure(settings)
    _check_policy(settings)
    log_level_signal.block()
    level = log_level_signal.LogLevel(settings.log_level, settings.log_format)
    level.begin()
    from pointsman_server.app import supervisor

    with start_errors():
        _require_tracing(settings)

    if settings.workers > 1 and not supervisor.is_worker():
        raise typer.Exit(supervisor.run(settings, level))
    if settings.roles & CALLED:
        with start_errors():
            _listen(settings)
    launch(
        partial(_serve, settings, level),
        with_kafka=bool(settings.kafka_bootstrap_servers),
        with_xds=ServerRole.XDS in settings.roles,
    )


def _listen(settings: Settings) -> None:
    """Prepare to take calls: turn into Envoy where that is the transport; return where it is not."""
    from pointsman_server.app.listening import choose_transport, descriptors_for
    from pointsman_server.app.start_warnings import start_warnings
    from pointsman_server.runtime import descriptors

    descriptors.raise_limit(descriptors_for(settings))
    choice = choose_transport(settings) if ServerRole.API in settings.roles else None
    for text in start_warnings(settings, choice):
        log.warning(text)
    if choice and choice.transport == "envoy":
        from pointsman_server.app import envoy

        envoy.become(settings)


def _serve(settings: Settings, level: log_level_signal.LogLevel) -> None:
    from pointsman_server.app import application

    event_loop.run(application.serve(settings, level))


def _require_tracing(settings: Settings) -> None:
    """Raise TracingMissing: now, not in each worker at each restart."""
    from pointsman_server.telemetry.tracing.activation import require_tracing

    require_tracing(settings)


def _check_policy(settings: Settings) -> None:
    """End with 2 if the policy is broken: now, not in each worker at each restart."""
    if settings.policy_file is None or not settings.roles & CALLED:
        return
    from pointsman_server.adapters.files.policy import PolicyError, read_policy

    try:
        read_policy(settings.policy_file)
    except PolicyError as error:
        fail(str(error), code=2)
