"""Becomes Envoy: this process turns into one that runs the same server inside of Envoy (``envoy_worker``).

One process, so that it is signalled, stopped and killed as one, and nothing outlives it. SIGTERM and SIGINT are blocked
from here on: Envoy would end at once; the server waits for them, and drains.
"""

import json
import os
import signal
import socket
import sys
import tempfile
from pathlib import Path

from pointsman_server.app.listening import ListenError, call_limits, connection_limits, tls_files
from pointsman_server.config.environment import as_environ
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import host_and_port
from pointsman_server.rpc.transport.envoy import process, transcoding
from pointsman_server.rpc.transport.envoy.bootstrap import Door, bootstrap
from pointsman_server.rpc.transport.envoy.secrets import Secrets

# Where the worker finds what this module made; set only inside of Envoy.
DIRECTORY = "POINTSMAN_INTERNAL_ENVOY_DIRECTORY"
WORKER = "pointsman_server.app.envoy_worker:application"
SIGNALS = frozenset({signal.SIGTERM, signal.SIGINT})
LOG_LEVELS = {"debug": "info", "info": "warning", "warning": "warning", "error": "error"}


def is_inside() -> bool:
    """Say whether this process is Envoy."""
    return DIRECTORY in os.environ


def become(settings: Settings) -> None:
    """Turn this process into Envoy. Does not return. Raises ListenError, EnvoyMissing and BadCertificates."""
    installation = process.Installation.find()
    check_address(settings)
    directory = Path(tempfile.mkdtemp(prefix="pointsman-envoy-"))
    door = make_door(settings, installation, directory, WORKER)
    environ = os.environ | as_environ(settings) | process.environment(installation) | {DIRECTORY: str(directory)}
    command = process.command(installation, write(door), log_level=LOG_LEVELS[settings.log_level])
    sys.stdout.flush()
    sys.stderr.flush()
    signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
    os.execve(command[0], command, environ)  # noqa: S606 - becoming Envoy is the point


def make_door(settings: Settings, installation: process.Installation, directory: Path, application: str) -> Door:
    """Say what Envoy serves, and give it the certificates. Raises BadCertificates."""
    host, port = host_and_port(settings.listen)
    door = Door(
        host,
        port,
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
        log_json=settings.log_format == "json" or (settings.log_format == "auto" and not sys.stderr.isatty()),
    )
    if secrets := make_secrets(settings, directory):
        secrets.publish()
    return door


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

    return Secrets(files, directory / "tls", certificates.check)


def write(door: Door) -> Path:
    """Write the configuration of Envoy; return its path."""
    path = door.directory / "envoy.json"
    path.write_text(json.dumps(bootstrap(door)))
    return path


def check_address(settings: Settings) -> None:
    """Try the address, because Envoy's own error does not name the variable. Raises ListenError."""
    host, port = host_and_port(settings.listen)
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if settings.workers > 1:
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
            probe.bind(address)
    except OSError as error:
        raise ListenError(f"cannot listen on {settings.listen} (POINTSMAN_LISTEN): is it taken?") from error
