"""Becomes Envoy: this process turns into one that runs the same server inside of Envoy (``envoy_worker``).

One process, so that it is signalled, stopped and killed as one, and nothing outlives it. Its signals are
blocked from here on: Envoy would end at once; the server waits for them, and drains, or changes the level of the log.
"""

import json
import os
import shutil
import signal
import sys
from pathlib import Path

from pointsman_server.app.listening import Addresses, bindable, call_limits, connection_limits, tls_files
from pointsman_server.config.environment import as_environ
from pointsman_server.config.settings import Settings
from pointsman_server.rpc.transport.envoy import goaway, process, transcoding
from pointsman_server.rpc.transport.envoy.bootstrap import Door, admin_socket, bootstrap
from pointsman_server.rpc.transport.envoy.secrets import Secrets, directory_in
from pointsman_server.runtime import private_directory
from pointsman_server.telemetry import log_level, logs

# Where the worker finds what this module made; set only inside of Envoy.
DIRECTORY = "POINTSMAN_INTERNAL_ENVOY_DIRECTORY"
WORKER = "pointsman_server.app.envoy_worker:application"
SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT, log_level.SIGNAL})
PREFIX = "pointsman-envoy-"
# Below a warning, Envoy lists what it was built from.
LOG_LEVELS = {"debug": "warning", "info": "warning", "warning": "warning", "error": "error"}


def become(settings: Settings) -> None:
    """Turn this process into Envoy. Does not return. Raises START_ERRORS, and EnvoyMissing."""
    installation = process.Installation.find()
    require_directory()
    addresses = bindable(settings)
    directory = private_directory.make(PREFIX)
    try:
        door = make_door(settings, installation, directory, WORKER, addresses)
        environ = os.environ | as_environ(settings) | process.environment(installation) | {DIRECTORY: str(directory)}
        command = process.command(
            installation, write(door), log_level=LOG_LEVELS[settings.log_level], log_json=logs_json(settings)
        )
        sys.stdout.flush()
        sys.stderr.flush()
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        os.execve(command[0], command, environ)  # noqa: S606 - becoming Envoy is the point
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def require_directory() -> None:
    """Raise UnusableDirectory where Envoy's administration has no place to listen."""
    private_directory.require_room(PREFIX, admin_socket(Path()).name)


def make_door(
    settings: Settings,
    installation: process.Installation,
    directory: Path,
    application: str,
    addresses: Addresses,
) -> Door:
    """Say what Envoy serves, and give it the certificates. Raises BadCertificates."""
    door = Door(
        addresses.hosts,
        addresses.port,
        application,
        str(installation.module),
        directory,
        limits=call_limits(settings),
        connections=connection_limits(settings),
        share_port=settings.workers > 1,
        tls=tls_of(settings),
        filters=transcoding.filters(message_bytes=settings.max_message_bytes, cors_origins=settings.cors_origins),
        virtual_host=transcoding.virtual_host(settings.cors_origins),
        local_replies=transcoding.local_replies(),
    )
    if secrets := make_secrets(settings, directory):
        secrets.publish()
    return door


def logs_json(settings: Settings) -> bool:
    """Say whether the log is JSON, and not for people."""
    return not logs.is_console(settings.log_format)


def tls_of(settings: Settings) -> str:
    """Say which TLS the settings ask for, as ``Door.tls``."""
    if not settings.tls_cert_file:
        return ""
    return "mutual" if settings.tls_client_ca_file else "server"


def make_secrets(settings: Settings, directory: Path) -> Secrets | None:
    """Make what gives Envoy the certificates; None without TLS."""
    files = tls_files(settings)
    if files is None:
        return None
    from pointsman_server.adapters.files import certificates

    return Secrets(files, directory_in(directory), certificates.check)


def write(door: Door) -> Path:
    """Write the configuration of Envoy; return its path."""
    goaway.prepare(door.directory)
    path = door.directory / "envoy.json"
    path.write_text(json.dumps(bootstrap(door)))
    return path
