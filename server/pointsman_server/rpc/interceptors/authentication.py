"""Authenticates callers: reads the credentials of a call, and has ``auth.authenticator`` verify them."""

from collections.abc import Awaitable, Iterable
from ipaddress import IPv6Address
from typing import Any
from urllib.parse import unquote

from pointsman_server.auth.authenticator import Authenticator, CertificateNames, Credentials
from pointsman_server.rpc import HEALTH
from pointsman_server.rpc.call import Call, Context, current_call
from pointsman_server.rpc.interceptors.stage import CallHandler, Method, Stage

AUTHORIZATION = "authorization"


def authenticate(authenticator: Authenticator) -> Stage:
    """Set ``Call.identity``, or refuse the call. Health asks for no credentials: probes have none."""

    def stage(method: Method, proceed: CallHandler) -> CallHandler:
        if method.service == HEALTH:
            return proceed

        async def handle(request: Any, context: Context) -> Any:
            authorization = _authorization(context)
            # The common case: one header, which was verified before.
            identity = authenticator.recall(authorization[0]) if len(authorization) == 1 else None
            if identity is None:
                identity = await authenticator.authenticate(credentials_of(context, authorization))
            call = current_call()
            call.identity = identity
            if method.response_streaming:
                context.access.append(_Recheck(authenticator, authorization, call, context).check)  # type: ignore[attr-defined]
            return await proceed(request, context)

        return handle

    return stage


class _Recheck:
    """Verifies the credential again before each response: a stream may outlive it.

    An object, because functions that share variables take three times as much for as long as the stream is open.
    """

    __slots__ = ("_authenticator", "_authorization", "_call", "_context")

    def __init__(self, authenticator: Authenticator, authorization: tuple[str, ...], call: Call, context: Any) -> None:
        self._authenticator = authenticator
        self._authorization = authorization
        self._call = call
        self._context = context

    def check(self) -> Awaitable[None] | None:
        authorization = self._authorization
        identity = self._authenticator.recall(authorization[0]) if authorization else None
        if identity is None:
            return self._verify()
        # Another call may have verified the credential again, with another result.
        self._call.identity = identity
        return None

    async def _verify(self) -> None:
        credentials = credentials_of(self._context, self._authorization)
        self._call.identity = await self._authenticator.authenticate(credentials, again=True)


def credentials_of(context: Context, authorization: tuple[str, ...]) -> Credentials:
    """Collect the credentials of a call. A client certificate counts only without an ``authorization`` header."""
    certificate = None if authorization else _certificate(context)
    return Credentials(authorization, certificate, host_of(context.peer()))


def _authorization(context: Context) -> tuple[str, ...]:
    metadata: Iterable[tuple[str, str | bytes]] = context.invocation_metadata() or ()
    return tuple([_text(value) for key, value in metadata if key == AUTHORIZATION])


def _text(value: str | bytes) -> str:
    # grpcio gives bytes where the value is not text; no credential has the replacement characters that result.
    return value if isinstance(value, str) else value.decode("ascii", "replace")


def _certificate(context: Context) -> CertificateNames | None:
    """Read the names in the client certificate, which the transport has verified; None without one."""
    properties = context.auth_context()
    if not properties.get("x509_pem_cert"):
        return None
    return CertificateNames(_names(properties.get("peer_uri")), _names(properties.get("peer_dns")))


def _names(values: Iterable[bytes] | None) -> tuple[str, ...]:
    return tuple(value.decode("ascii", "replace") for value in values or ())


def host_of(peer: str) -> str:
    """Return the host of ``ipv4:host:port`` or ``ipv6:[host]:port``.

    Of IPv6, return the first 64 bits: one host can use all the rest. All peers that are not IP are one host.
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
