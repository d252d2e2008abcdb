"""What the settings say about listening for gRPC: by which transport, with which certificates and limits.

It loads neither grpc nor Envoy: a process that becomes Envoy, or that supervises workers, needs neither.
"""

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from pointsman_server.config.names import variable
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import CALLED, host_and_port
from pointsman_server.ops.certificate_expiry import CertificateExpiry
from pointsman_server.rpc.transport import choice
from pointsman_server.rpc.transport.certificates import CONNECTION_SECONDS, Files
from pointsman_server.rpc.transport.envoy.process import missing
from pointsman_server.rpc.transport.limits import CallLimits, Connections
from pointsman_server.runtime import descriptors

# Of localhost, a machine without IPv6 has one address alone.
ABSENT = (errno.EADDRNOTAVAIL, errno.EAFNOSUPPORT)
# File descriptors for everything but clients of gRPC and PostgreSQL: files, Redis, Kafka, operations.
OTHER_DESCRIPTORS = 256


class ListenError(Exception):
    """An address cannot be listened on; the text names it and its variable."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """The IP addresses of a host, and the port to listen on at each; port 0 is any, for one address alone."""

    hosts: Sequence[str]
    port: int


def bindable(settings: Settings) -> Addresses:
    """Resolve the address of gRPC, and bind each of its IP addresses for a moment.

    For Envoy, which takes IP addresses alone, and whose own error does not name the setting. An address that this
    machine does not have is left out, unless it is the only one. Raises ListenError.
    """
    host, port = host_and_port(settings.listen)
    bound: dict[str, socket.socket] = {}
    absent: OSError | None = None
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for family, address in dict.fromkeys((family, address) for family, _, _, _, address in found):
            try:
                bound[str(address[0])] = probe = _bind(family, (address[0], port, *address[2:]), settings)
            except OSError as error:
                if error.errno not in ABSENT:
                    raise
                absent = error
            else:
                # Several addresses share one port, also where any will do.
                port = port if len(found) == 1 else int(probe.getsockname()[1])
        if not bound and absent:
            raise absent
    except OSError as error:
        raise cannot_listen(settings) from error
    finally:
        for probe in bound.values():
            probe.close()
    return Addresses(list(bound), port)


def cannot_listen(settings: Settings, name: str = "listen") -> ListenError:
    """Make the error of a gRPC address that cannot be listened on: that of the setting ``name``."""
    return ListenError(f"cannot listen on {getattr(settings, name)} ({variable(name)}): is it taken?")


def _bind(family: int, address: tuple[Any, ...], settings: Settings) -> socket.socket:
    probe = socket.socket(family, socket.SOCK_STREAM)
    try:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if settings.workers > 1:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        probe.bind(address)
    except OSError:
        probe.close()
        raise
    return probe


def choose_transport(settings: Settings) -> choice.Choice:
    """Choose the transport of the settings. Raises TransportUnavailable."""
    return choice.choose(settings.transport, missing=missing())


def tls_files(settings: Settings) -> Files | None:
    """Return the files of TLS; None where it is off."""
    if not (settings.tls_cert_file and settings.tls_key_file):
        return None
    return Files(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)


def certificate_expiry(settings: Settings) -> CertificateExpiry | None:
    """Make what says when the certificates of TLS end; None where it is off."""
    files = tls_files(settings)
    if files is None:
        return None
    # Imported here, because cryptography takes much of a server's memory, and only TLS and JWTs need it.
    from pointsman_server.adapters.files import certificates

    authorities = {"client_ca": files.client_ca} if files.client_ca else {}
    return CertificateExpiry({"server": files.cert, **authorities}, certificates.expires)


def call_limits(settings: Settings) -> CallLimits:
    """Say what one connection may take."""
    return CallLimits(settings.max_message_bytes, settings.max_metadata_bytes, settings.max_streams)


def connection_limits(settings: Settings) -> Connections:
    """Say how long connections live, and how they are pinged.

    Client certificates bound the age: one is checked when a connection begins, and may be revoked later.
    """
    ages = [settings.connection_age_seconds, CONNECTION_SECONDS if settings.tls_client_ca_file else 0]
    return Connections(
        most=most_connections(settings),
        unread=settings.unread_seconds,
        heap_bytes=settings.max_heap_megabytes << 20,
        keepalive=settings.keepalive_seconds,
        keepalive_timeout=settings.keepalive_timeout_seconds,
        client_ping=settings.client_ping_seconds,
        idle=settings.connection_idle_seconds,
        age=min(filter(None, ages), default=0),
    )


def most_streams(settings: Settings) -> int:
    """Count the clients of xDS that a worker accepts: each has one stream, on a connection of its own."""
    connections = most_connections(settings)
    return min(connections, settings.max_concurrent_calls or connections)


def descriptors_for(settings: Settings) -> int:
    """Count the file descriptors of a process that has all the connections of the settings."""
    ports = max(1, len(settings.roles & CALLED))
    return ports * settings.max_connections + settings.database_pool_max + OTHER_DESCRIPTORS


def most_connections(settings: Settings) -> int:
    """Return how many connections of clients each gRPC port takes: fewer than set where descriptors are short.

    Without a bound below the limit of descriptors, clients could take those that PostgreSQL and Redis need.
    """
    reachable = descriptors.within_reach()
    spare = max(reachable - settings.database_pool_max - OTHER_DESCRIPTORS, reachable // 2)
    return min(settings.max_connections, spare // max(1, len(settings.roles & CALLED)))
