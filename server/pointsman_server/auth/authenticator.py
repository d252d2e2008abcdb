"""Who calls: decides by which credential, has it verified, and remembers those that were found good.

A credential counts for one call at a time, and there is exactly one of it: where a call shows two, it is unclear which
of them proxies before us looked at, so neither counts.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pointsman_server.domain.errors import AccessUnavailable, RateLimited, Unauthenticated
from pointsman_server.domain.identity import Credential, Identity
from pointsman_server.ports.credentials import CredentialVerifier
from pointsman_server.runtime.bounded_dict import remember
from pointsman_server.runtime.rate_limiter import Limiter, Rate

API_KEY_PREFIX = "pmk_"
MOST_REMEMBERED = 4096

_SCHEME = "bearer "
# RFC 6750 §2.1.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
# The SPIFFE ID standard §2; a caller's has a path. Much of it would not fit a log line.
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+")
LONGEST_SPIFFE_ID = 2048
_DNS_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
LONGEST_DNS_NAME = 253


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """The names of a client certificate that the transport has verified: its SANs, by kind. Never its CN (RFC 9525)."""

    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a call shows: every value of ``authorization``, the client certificate if there is one, and its host."""

    authorization: tuple[str, ...] = ()
    certificate: CertificateNames | None = None
    peer: str = ""


def limit_of_failures(per_second: float) -> Limiter:
    """Bound the bad credentials that a host may show: so many a second, and a burst of as many."""
    return Limiter("authentication.failures", Rate(per_second, burst_seconds=1))


@dataclass(frozen=True, slots=True)
class KnownIdentity:
    """Who showed a credential, as ``verifier`` said at ``version``."""

    identity: Identity
    verifier: CredentialVerifier
    version: int


class Authenticator:
    """Tells who calls, by the kinds of credentials that are enabled.

    ``failures`` bounds the bad credentials of a host, and those that are being checked.
    ``checked`` hears of each check: the kind of credential, and ``ok``, the problem, ``limited`` or ``unavailable``.
    What is remembered is not checked again. ``now`` is in seconds since the epoch of Unix.
    """

    def __init__(
        self,
        *,
        tokens: CredentialVerifier | None = None,
        api_keys: CredentialVerifier | None = None,
        certificates: bool = False,
        failures: Limiter,
        checked: Callable[[str, str], None] = lambda _credential, _outcome: None,
        most_remembered: int = MOST_REMEMBERED,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._verifiers = {Credential.BEARER_TOKEN: tokens, Credential.API_KEY: api_keys}
        self._certificates = certificates
        self._failures = failures
        self._checked = checked
        self._most = most_remembered
        self._now = now
        self._remembered: dict[str, KnownIdentity] = {}
        self._of_certificates: dict[CertificateNames, Identity] = {}

    def recall(self, authorization: str) -> Identity | None:
        """Return who showed exactly this header before, unless it has expired or its verifier knows better now."""
        found = self._remembered.get(authorization)
        if found is None:
            return None
        if found.version == found.verifier.version and self._now() < found.identity.expires_at:
            return found.identity
        del self._remembered[authorization]
        return None

    async def authenticate(self, shown: Credentials) -> Identity:
        """Return who calls.

        Raises Unauthenticated; AccessUnavailable while nothing is known to check by; RateLimited when the host has
        shown too many bad credentials of late.
        """
        if len(shown.authorization) == 1:
            identity = self.recall(shown.authorization[0])
            if identity is not None:
                return identity
        elif not shown.authorization and shown.certificate in self._of_certificates:
            return self._of_certificates[shown.certificate]
        kind = _kind_of(shown)
        try:
            identity = await self._identify(kind, shown)
        except Unauthenticated as error:
            self._checked(kind, error.problem)
            raise
        except RateLimited:
            self._checked(kind, "limited")
            raise
        except AccessUnavailable:
            self._checked(kind, "unavailable")
            raise
        self._checked(kind, "ok")
        return identity

    async def _identify(self, kind: Credential, shown: Credentials) -> Identity:
        if shown.authorization:
            return await self._by_header(kind, shown)
        if shown.certificate is not None:
            return self._by_certificate(shown.certificate)
        raise Unauthenticated(Credential.NONE, "missing", f"the call shows no credential: send {self._wanted()}")

    async def _by_header(self, kind: Credential, shown: Credentials) -> Identity:
        if len(shown.authorization) > 1:
            raise Unauthenticated(kind, "ambiguous", "the call has more than one authorization header: send one")
        header = shown.authorization[0]
        credential = _credential_in(header)
        verifier = self._verifiers.get(kind)
        if verifier is None:
            raise Unauthenticated(kind, "not enabled", f"this server takes no {kind}: send {self._wanted()}")
        # Before the check and not after it: a check may wait for keys, and others would pass meanwhile.
        self._failures.take(shown.peer)
        # Read before the check: what is found by what was known then may be void already when it is over.
        version = verifier.version
        try:
            identity = await verifier.verify(credential)
        except AccessUnavailable:
            self._failures.give_back(shown.peer)
            raise
        self._failures.give_back(shown.peer)
        # Not with many spaces: of those, one credential has as many forms as its caller likes.
        if len(header) == len(_SCHEME) + len(credential):
            remember(self._remembered, header, KnownIdentity(identity, verifier, version), self._most)
        return identity

    def _by_certificate(self, names: CertificateNames) -> Identity:
        if not self._certificates:
            message = f"this server takes no client certificate: send {self._wanted()}"
            raise Unauthenticated(Credential.CERTIFICATE, "not enabled", message)
        identity = Identity(_subject(names), Credential.CERTIFICATE)
        remember(self._of_certificates, names, identity, self._most)
        return identity

    def _wanted(self) -> str:
        return " or ".join(self._kinds())

    def _kinds(self) -> Iterator[str]:
        if self._verifiers[Credential.BEARER_TOKEN]:
            yield "a token of the issuer as `authorization: Bearer …`"
        if self._verifiers[Credential.API_KEY]:
            yield f"an API key as `authorization: Bearer {API_KEY_PREFIX}…`"
        if self._certificates:
            yield "a client certificate"


def _kind_of(shown: Credentials) -> Credential:
    if not shown.authorization:
        return Credential.NONE if shown.certificate is None else Credential.CERTIFICATE
    scheme, _, credential = shown.authorization[0].strip(" ").partition(" ")
    if scheme.lower() != "bearer":
        return Credential.NONE
    is_key = credential.lstrip(" ").startswith(API_KEY_PREFIX)
    return Credential.API_KEY if is_key else Credential.BEARER_TOKEN


def _credential_in(header: str) -> str:
    """Take the credential out of the header (RFC 6750 §2.1). Raises Unauthenticated."""
    scheme, _, credential = header.strip(" ").partition(" ")
    if scheme.lower() != "bearer":
        message = "the authorization header has another scheme than Bearer: send `authorization: Bearer …`"
        raise Unauthenticated(Credential.NONE, "scheme", message)
    credential = credential.lstrip(" ")
    if not _TOKEN.fullmatch(credential):
        message = "what follows Bearer is no token: send it as it was issued, without quotes, commas or line ends"
        raise Unauthenticated(Credential.BEARER_TOKEN, "malformed", message)
    return credential


def _subject(names: CertificateNames) -> str:
    """Name the caller by the one SPIFFE ID (X.509-SVID §5.2: with another URI beside it, refused), else DNS name."""
    if any(uri.lower().startswith("spiffe:") for uri in names.uris):
        uri = _only(names.uris, "URI, and one of them is a SPIFFE ID")
        if len(uri) > LONGEST_SPIFFE_ID or not _SPIFFE_ID.fullmatch(uri):
            raise _nameless("has a SPIFFE ID that is malformed or names a trust domain only")
        return uri
    if not names.dns:
        raise _nameless("has neither a SPIFFE ID nor a DNS name (its CN does not count)")
    name = _only(names.dns, "DNS name").lower()
    if len(name) > LONGEST_DNS_NAME or not _DNS_NAME.fullmatch(name):
        raise _nameless("has a DNS name that is a wildcard or malformed")
    return f"dns:{name}"


def _only(names: tuple[str, ...], what: str) -> str:
    if len(names) > 1:
        message = f"the client certificate has more than one {what}: use one that names one caller"
        raise Unauthenticated(Credential.CERTIFICATE, "ambiguous", message)
    return names[0]


def _nameless(why: str) -> Unauthenticated:
    return Unauthenticated(Credential.CERTIFICATE, "no name", f"the client certificate {why}: use one that names you")
