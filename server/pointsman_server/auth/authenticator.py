"""Authentication: chooses the credential of a call, has it verified, and caches the identity.

A call must carry exactly one credential. Where it carries two, a proxy in front may have checked the other one, so
neither is accepted.
"""

import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pointsman_server.domain.access_errors import AccessUnavailable, RateLimited, Unauthenticated
from pointsman_server.domain.identity import Credential, Identity
from pointsman_server.ports.credentials import CredentialVerifier
from pointsman_server.runtime.bounded_dict import put_bounded
from pointsman_server.runtime.rate_limiter import Limiter, Rate

API_KEY_PREFIX = "pmk_"
MOST_REMEMBERED = 4096

_SCHEME = "bearer "
# RFC 6750 §2.1.
_TOKEN = re.compile(r"[A-Za-z0-9._~+/=-]+")
# SPIFFE ID standard §2; a caller's ID has a path.
_SPIFFE_ID = re.compile(r"spiffe://[a-z0-9._-]{1,255}(/[A-Za-z0-9._-]+)+")
LONGEST_SPIFFE_ID = 2048
_DNS_NAME = re.compile(r"[a-z0-9_-]{1,63}(\.[a-z0-9_-]{1,63})*")
LONGEST_DNS_NAME = 253


@dataclass(frozen=True, slots=True)
class CertificateNames:
    """Subject alternative names of a client certificate that the transport verified. Never its CN (RFC 9525)."""

    uris: tuple[str, ...] = ()
    dns: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Credentials:
    """The credentials of a call: every value of ``authorization``, the client certificate if any, and the peer host."""

    authorization: tuple[str, ...] = ()
    certificate: CertificateNames | None = None
    peer: str = ""


def limit_of_failures(per_second: float) -> Limiter:
    """Return the limiter of bad credentials from one host: ``per_second``, with a burst of one second."""
    return Limiter("authentication.failures", Rate(per_second, burst_seconds=1))


@dataclass(frozen=True, slots=True)
class KnownIdentity:
    """The identity behind a credential, as ``verifier`` returned it at its ``version``."""

    identity: Identity
    verifier: CredentialVerifier
    version: int


class Authenticator:
    """Identifies callers by the kinds of credentials that are enabled.

    ``failures`` limits bad credentials per host, including those still being verified. ``checked`` is called after each
    verification with the kind of credential and ``ok``, the problem, ``limited`` or ``unavailable``. A cached identity
    is not verified again. ``now`` returns seconds since the Unix epoch.
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
        """Return the cached identity of this header; None if there is none or it is no longer valid."""
        found = self._remembered.get(authorization)
        if found is None:
            return None
        if found.version == found.verifier.version and self._now() < found.identity.expires_at:
            return found.identity
        del self._remembered[authorization]
        return None

    async def authenticate(self, shown: Credentials, *, again: bool = False) -> Identity:
        """Return the identity of the caller.

        ``again``: the credential was valid earlier in the same call, so it is no guess, and the limit of bad ones does
        not apply.

        Raises Unauthenticated; AccessUnavailable while keys have not been loaded; RateLimited when the host has sent
        too many bad credentials.
        """
        if len(shown.authorization) == 1:
            identity = self.recall(shown.authorization[0])
            if identity is not None:
                return identity
        elif not shown.authorization and shown.certificate in self._of_certificates:
            return self._of_certificates[shown.certificate]
        kind = _kind_of(shown)
        try:
            identity = await self._identify(kind, shown, again=again)
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

    async def _identify(self, kind: Credential, shown: Credentials, *, again: bool) -> Identity:
        if shown.authorization:
            return await self._by_header(kind, shown, again=again)
        if shown.certificate is not None:
            return self._by_certificate(shown.certificate)
        raise Unauthenticated(Credential.NONE, "missing", f"the call has no credential: send {self._wanted()}")

    async def _by_header(self, kind: Credential, shown: Credentials, *, again: bool) -> Identity:
        if len(shown.authorization) > 1:
            raise Unauthenticated(kind, "ambiguous", "the call has more than one authorization header: send one")
        header = shown.authorization[0]
        credential = _credential_in(header)
        verifier = self._verifiers.get(kind)
        if verifier is None:
            raise Unauthenticated(kind, "not enabled", f"this server takes no {kind}: send {self._wanted()}")
        # Read before the verification: the keys may change while it runs, and then its result must not be cached.
        version = verifier.version
        identity = await (verifier.verify(credential) if again else self._verify(verifier, credential, shown.peer))
        # Not with extra spaces: one credential would fill the cache in many spellings.
        if len(header) == len(_SCHEME) + len(credential):
            put_bounded(self._remembered, header, KnownIdentity(identity, verifier, version), self._most)
        return identity

    async def _verify(self, verifier: CredentialVerifier, credential: str, peer: str) -> Identity:
        # Before the verification: it may wait for keys, and more bad credentials would pass meanwhile.
        self._failures.take(peer)
        try:
            identity = await verifier.verify(credential)
        except AccessUnavailable:
            self._failures.give_back(peer)
            raise
        self._failures.give_back(peer)
        return identity

    def _by_certificate(self, names: CertificateNames) -> Identity:
        if not self._certificates:
            message = f"this server takes no client certificate: send {self._wanted()}"
            raise Unauthenticated(Credential.CERTIFICATE, "not enabled", message)
        identity = Identity(_subject(names), Credential.CERTIFICATE)
        put_bounded(self._of_certificates, names, identity, self._most)
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
    """Return the credential in the header (RFC 6750 §2.1). Raises Unauthenticated."""
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
    """Return the subject: the one SPIFFE ID (X.509-SVID §5.2: a second URI is refused), else the one DNS name."""
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
