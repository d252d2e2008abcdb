"""What gRPC connects to for the URL of a route."""

from dataclasses import dataclass
from urllib.parse import urlsplit

from pointsman.errors import FailedPrecondition
from pointsman.rules import ascii_host

DEFAULT_PORTS = {"http": 80, "https": 443}


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port as a gRPC target, and whether they are spoken to by TLS."""

    target: str
    secure: bool


def address_of(url: str, *, plaintext: bool) -> Address:
    """Return where the URL of a route leads: https to TLS, http to plaintext, the port 443 or 80 where it has none.

    gRPC verifies the certificate against the host of the target, which is the host of the URL.

    Raises FailedPrecondition for a URL that gRPC cannot carry: another scheme, or anything behind host and port; and
    for http unless ``plaintext``. The text does not repeat the URL, which may hold a secret.
    """
    parts = urlsplit(url)
    port = DEFAULT_PORTS.get(parts.scheme)
    if port is None or not parts.hostname:
        raise _not_carried(
            f"its scheme is {parts.scheme or 'empty'}", "give it a URL that begins with https:// or http://"
        )
    if "@" in parts.netloc or parts.path not in {"", "/"} or parts.query or parts.fragment:
        raise _not_carried(
            "there is something besides host and port", "gRPC has no place for it: give it a URL without"
        )
    if parts.scheme == "http" and not plaintext:
        raise _not_carried(
            "it is http, and this channel does not use plaintext", "give it a URL that begins with https://"
        )
    host = ascii_host(parts.hostname)
    literal = f"[{host}]" if ":" in host else host
    return Address(f"dns:///{literal}:{parts.port or port}", parts.scheme == "https")


def _not_carried(problem: str, remedy: str) -> FailedPrecondition:
    return FailedPrecondition(f"the URL that is live cannot be called by gRPC: {problem}; {remedy}")
