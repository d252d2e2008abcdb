"""Who calls: reads what a call shows, and has ``authenticating`` say who that is."""

from collections.abc import Iterable
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import unquote

from grpc_health.v1.health_pb2 import DESCRIPTOR as HEALTH_FILE

from pointsman_server.auth.authenticator import Authenticator, CertificateNames, Credentials
from pointsman_server.rpc import call as calls
from pointsman_server.rpc.call import Context
from pointsman_server.rpc.interceptors.stage import Handler, Method, Stage

AUTHORIZATION = "authorization"
# Probes have no credentials, and learn nothing but whether the server serves.
HEALTH = HEALTH_FILE.services_by_name["Health"].full_name


def authenticate(authenticator: Authenticator) -> Stage:
    """Find out who calls, for ``calls.Call.identity``; health answers anybody."""

    def stage(method: Method, proceed: Handler) -> Handler:
        if method.service == HEALTH:
            return proceed

        async def handle(request: Any, context: Context) -> Any:
            authorization = _authorization(context)
            # One header, seen before: the way that nearly every call goes.
            identity = authenticator.recall(authorization[0]) if len(authorization) == 1 else None
            if identity is None:
                identity = await authenticator.authenticate(shown(context, authorization))
            calls.current().identity = identity
            return await proceed(request, context)

        return handle

    return stage


def shown(context: Context, authorization: tuple[str, ...]) -> Credentials:
    """Collect what the call shows. A certificate counts only where no header does."""
    certificate = None if authorization else _certificate(context)
    return Credentials(authorization, certificate, host_of(context.peer()))


def _authorization(context: Context) -> tuple[str, ...]:
    metadata: Iterable[tuple[str, str | bytes]] = context.invocation_metadata() or ()
    return tuple([_text(value) for key, value in metadata if key == AUTHORIZATION])


def _text(value: str | bytes) -> str:
    # grpcio gives bytes where the value is no text; no credential looks like what becomes of it here.
    return value if isinstance(value, str) else value.decode("ascii", "replace")


def _certificate(context: Context) -> CertificateNames | None:
    """Read the names of a certificate that the transport has verified, if there is one."""
    properties = context.auth_context()
    if not properties.get("x509_pem_cert"):
        return None
    return CertificateNames(_names(properties.get("peer_uri")), _names(properties.get("peer_dns")))


def _names(values: Iterable[bytes] | None) -> tuple[str, ...]:
    return tuple(value.decode("ascii", "replace") for value in values or ())


def host_of(peer: str) -> str:
    """Take the host out of ``ipv4:host:port`` or ``ipv6:[host]:port``; of IPv6 the first 64 bits, as one host has all
    the rest. What is no address of IP is one host.
    """
    kind, _, address = peer.partition(":")
    if kind == "ipv4":
        return address.rpartition(":")[0]
    if kind != "ipv6":
        return kind
    host = unquote(address).rpartition(":")[0].strip("[]").partition("%")[0]
    try:
        network = IPv6Address(host)
    except ValueError:
        return kind
    mapped = network.ipv4_mapped
    return str(mapped) if mapped else network.exploded[:19]
