"""Where a URL leads, as far as xDS can say it."""

from functools import lru_cache
from ipaddress import IPv6Address, ip_address
from typing import NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

from pointsman.rules import DEFAULT_PORTS, TLS_SCHEMES, ascii_host
from pointsman_server.xds.views import ClientKind

# Of a path: RFC 3986, appendix A; what is escaped already stays so.
_PATH_CHARACTERS = "/:@!$&'()*+,;=~%"


class Destination(NamedTuple):
    """``host`` is an IP address or a name in ASCII and lower case; ``path`` is empty, or begins and ends with a slash.

    ``san`` is what the certificate of the host must be valid for. ``authority`` is what the host expects as Host, or
    ``:authority``.
    """

    host: str
    literal: bool
    port: int
    tls: bool
    path: str
    san: str
    authority: str


class NotCarried(NamedTuple):
    """Why clients of a kind cannot be led to a URL, in words. The URL is not repeated."""

    reason: str


@lru_cache(4096)
def destination_of(kind: ClientKind, url: str) -> Destination | NotCarried:
    """Return where ``url`` leads clients of ``kind``. Total: also for what is no URL."""
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return NotCarried("its URL is malformed")
    problem = _problem(kind, parts, port)
    if problem:
        return NotCarried(problem)
    try:
        host, literal = _host(parts.hostname or "")
    except ValueError:
        return NotCarried("the host of its URL is malformed")
    default = DEFAULT_PORTS[parts.scheme]
    bracketed = f"[{host}]" if ":" in host else host
    return Destination(
        host=host,
        literal=literal,
        port=default if port is None else port,
        tls=parts.scheme in TLS_SCHEMES,
        path=_path(parts.path),
        san=host.removesuffix("."),
        authority=bracketed.removesuffix(".") if port in (None, default) else f"{bracketed.removesuffix('.')}:{port}",
    )


def _problem(kind: ClientKind, parts: SplitResult, port: int | None) -> str:
    if parts.scheme not in DEFAULT_PORTS:
        return f"its URL has a scheme that xDS does not carry: use one of {', '.join(sorted(DEFAULT_PORTS))}"
    if not parts.hostname:
        return "its URL has no host"
    if port == 0:
        return "its URL has the port 0"
    if parts.query or parts.fragment or "@" in parts.netloc:
        return "its URL has a query, a fragment or credentials, which xDS does not carry"
    if kind is ClientKind.GRPC and _path(parts.path):
        return "its URL has a path, which gRPC clients cannot add: route through Envoy, or use a URL without a path"
    return ""


def _path(path: str) -> str:
    if path in {"", "/"}:
        return ""
    escaped = quote(path, safe=_PATH_CHARACTERS)
    return escaped if escaped.endswith("/") else f"{escaped}/"


def _host(host: str) -> tuple[str, bool]:
    """Return a host in ASCII, and whether it is an IP address. Raises ValueError if it is neither address nor name."""
    try:
        address = ip_address(host)
    except ValueError:
        return ascii_host(host), False
    if isinstance(address, IPv6Address):
        if address.scope_id:
            raise ValueError("an address with a scope means something to one host only")
        # How such an address is written differs between versions of Python.
        address = address.ipv4_mapped or address
    return str(address), True
