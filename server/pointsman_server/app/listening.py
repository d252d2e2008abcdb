"""What the settings say about listening for gRPC: by which transport, with which certificates and limits.

It loads neither grpc nor Envoy: a process that becomes Envoy, or that supervises workers, needs neither.
"""

from pointsman_server.config.settings import Settings
from pointsman_server.rpc.transport import choice
from pointsman_server.rpc.transport.certificates import CONNECTION_SECONDS, Files
from pointsman_server.rpc.transport.envoy.process import missing
from pointsman_server.rpc.transport.limits import CallLimits, Connections


class ListenError(Exception):
    """An address cannot be listened on; the text names it and its variable."""


def choose_transport(settings: Settings) -> choice.Choice:
    """Choose the transport of the settings. Raises TransportUnavailable."""
    return choice.choose(settings.transport, missing=missing())


def tls_files(settings: Settings) -> Files | None:
    """Return the files of TLS; None where it is off."""
    if not (settings.tls_cert_file and settings.tls_key_file):
        return None
    return Files(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)


def call_limits(settings: Settings) -> CallLimits:
    """Say what one connection may take."""
    return CallLimits(settings.max_message_bytes, settings.max_metadata_bytes, settings.max_streams)


def connection_limits(settings: Settings) -> Connections:
    """Say how long connections live, and how they are pinged.

    Client certificates bound the age: one is checked when a connection begins, and may be revoked later.
    """
    ages = [settings.connection_age_seconds, CONNECTION_SECONDS if settings.tls_client_ca_file else 0]
    return Connections(
        most=settings.max_connections,
        unread=settings.unread_seconds,
        heap_bytes=settings.max_heap_megabytes << 20,
        keepalive=settings.keepalive_seconds,
        keepalive_timeout=settings.keepalive_timeout_seconds,
        client_ping=settings.client_ping_seconds,
        idle=settings.connection_idle_seconds,
        age=min(filter(None, ages), default=0),
    )
