"""What gRPC connects to for the URL of a route."""

from dataclasses import dataclass
from urllib.parse import SplitResult, urlsplit

from pointsman.errors import FailedPrecondition
from pointsman.rules import DEFAULT_PORTS, TLS_SCHEMES, ascii_host


@dataclass(frozen=True, slots=True)
class Address:
    """A host and a port as a gRPC target, and whether they are spoken to by TLS."""

    target: str
    secure: bool


def address_of(url: str, *, plaintext: bool) -> Address:
    """Return where the URL of a route leads: https and grpcs to TLS, http and grpc to plaintext, as with xDS.

    gRPC verifies the certificate against the host of the target, which is the host of the URL.

    Raises FailedPrecondition for a URL that gRPC cannot carry: another scheme, or anything behind host and port; and
    for plaintext unless ``plaintext``. The text does not repeat the URL, which may hold a secret.
    """
    parts = urlsplit(url)
    problem = _problem(parts, plaintext)
    if problem:
        raise FailedPrecondition(f"the URL that is live cannot be called by gRPC: {problem}")
    host = ascii_host(parts.hostname or "")
    literal = f"[{host}]" if ":" in host else host
    return Address(f"dns:///{literal}:{parts.port or DEFAULT_PORTS[parts.scheme]}", parts.scheme in TLS_SCHEMES)


def _problem(parts: SplitResult, plaintext: bool) -> str:
    if parts.scheme not in DEFAULT_PORTS:
        return f"its scheme is {parts.scheme or 'empty'}; give it a URL that begins with https:// or http://"
    if not parts.hostname:
        return "it has no host; give it a URL like https://payments.internal:8443"
    if parts.port == 0:
        return "its port is 0; give it a URL with the port that the service listens on"
    if "@" in parts.netloc or parts.path not in {"", "/"} or parts.query or parts.fragment:
        return "there is something besides host and port; gRPC has no place for it: give it a URL without"
    if not plaintext and parts.scheme not in TLS_SCHEMES:
        return f"it is {parts.scheme}, and this channel does not use plaintext; give it a URL that begins with https://"
    return ""
