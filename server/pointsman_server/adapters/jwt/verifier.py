"""Verifies a JWT: key, signature, claims. Errors say what is wrong and never quote the JWT."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from jwt.exceptions import (
    ExpiredSignatureError,
    ImmatureSignatureError,
    InvalidAlgorithmError,
    InvalidAudienceError,
    InvalidIssuedAtError,
    InvalidIssuerError,
    InvalidJTIError,
    InvalidKeyError,
    InvalidSignatureError,
    InvalidSubjectError,
    MissingRequiredClaimError,
    PyJWTError,
)

from pointsman_server.adapters.jwt.keys import Key, Keys
from pointsman_server.domain.access_errors import AccessUnavailable, Unauthenticated
from pointsman_server.domain.grants import parse_grant
from pointsman_server.domain.identity import Credential, Grant, Identity
from pointsman_server.runtime.refreshed import Refreshed

LONGEST_TOKEN = 8 << 10
LONGEST_SUBJECT = 200
# Seconds since the epoch of Unix: the year 9999, the last one of RFC 3339.
LATEST_EXPIRY = 253_402_300_799
# Values of ``typ`` for access tokens (RFC 9068), or none; a JWT of another type, such as a logout token,
# has the same signature and much the same claims (RFC 8725 §3.11).
ACCESS_TYPES = frozenset({"", "jwt", "at+jwt", "application/jwt", "application/at+jwt"})

# problem → what to do
MESSAGES: Mapping[str, str] = {
    "malformed": "the token is no signed JWT: send the whole of it, as the issuer gave it",
    "unsigned": "the token has no signature: get one that the issuer has signed",
    "algorithm": "the token is signed by an algorithm that this server or its key does not take: use another",
    "unknown key": "the token is signed by a key that the issuer does not publish: is it of this issuer?",
    "signature": "the signature of the token is wrong: was the token changed on its way, or is it of another issuer?",
    "expired": "the token has expired: get a new one",
    "not yet valid": "the token is not valid yet: compare your clock with that of the issuer",
    "issuer": "the token is of another issuer: get one of the issuer that this server takes",
    "audience": "the token is meant for another audience: ask the issuer for one that is meant for this server",
    "claims": "the token must have exp, aud, iss and a sub of 1 to 200 printable characters: get one that has them",
}

# In this order: some are kinds of others.
_PROBLEMS: tuple[tuple[tuple[type[PyJWTError], ...], str], ...] = (
    ((ExpiredSignatureError,), "expired"),
    ((ImmatureSignatureError,), "not yet valid"),
    ((InvalidIssuerError,), "issuer"),
    ((InvalidAudienceError,), "audience"),
    ((MissingRequiredClaimError, InvalidSubjectError, InvalidJTIError, InvalidIssuedAtError), "claims"),
    ((InvalidSignatureError,), "signature"),
    ((InvalidAlgorithmError, InvalidKeyError), "algorithm"),
)


@dataclass(frozen=True, slots=True)
class Rules:
    """What a JWT must match: issuer, audience, algorithms; ``leeway`` for clock skew, in seconds."""

    issuer: str
    audience: str
    algorithms: tuple[str, ...]
    leeway: float = 0.0
    grants_claim: str = ""


class TokenVerifier:
    """A ``ports.credentials.CredentialVerifier`` for JWTs of one issuer."""

    def __init__(self, keys: Refreshed[Keys], rules: Rules) -> None:
        self._keys = keys
        self._rules = rules

    @property
    def version(self) -> int:
        return self._keys.version

    async def verify(self, credential: str) -> Identity:
        """Return the identity. Raises Unauthenticated, with a problem of MESSAGES."""
        if len(credential) > LONGEST_TOKEN or not credential.isascii():
            raise _refusal("malformed")
        header = _header(credential)
        algorithm = self._algorithm(header)
        key = await self._key(header.get("kid") or None, algorithm)
        return self._identity(self._claims(credential, key, algorithm))

    def _algorithm(self, header: Mapping[str, Any]) -> str:
        algorithm = header.get("alg")
        if not algorithm or (isinstance(algorithm, str) and algorithm.lower() == "none"):
            raise _refusal("unsigned")
        if algorithm not in self._rules.algorithms:
            raise _refusal("algorithm")
        return str(algorithm)

    async def _key(self, kid: str | None, algorithm: str) -> Key:
        key = await self._find(kid, algorithm)
        if key is None:
            raise _refusal("unknown key")
        if algorithm not in key.algorithms:
            raise _refusal("algorithm")
        return key

    async def _find(self, kid: str | None, algorithm: str) -> Key | None:
        try:
            keys = self._keys.value
        except AccessUnavailable:
            pass
        else:
            # Without a name the key is found by the algorithm, and a renewal would not make it clearer.
            found = keys.only_one_for(algorithm) if kid is None else keys.named(kid)
            if found is not None or kid is None:
                return found
        await self._keys.renew_for_unknown()
        keys = self._keys.value
        return keys.only_one_for(algorithm) if kid is None else keys.named(kid)

    def _claims(self, token: str, key: Key, algorithm: str) -> dict[str, Any]:
        rules = self._rules
        try:
            return jwt.decode(
                token,
                key.public,
                algorithms=[algorithm],
                audience=rules.audience,
                issuer=rules.issuer,
                leeway=rules.leeway,
                options={"require": ["exp", "aud", "iss", "sub"], "enforce_minimum_key_length": True},
            )
        except PyJWTError as error:
            # Not chained: the texts of these errors quote the JWT.
            raise _refusal(_problem(error)) from None

    def _identity(self, claims: dict[str, Any]) -> Identity:
        subject, expiry = claims["sub"], claims["exp"]
        # PyJWT takes a text for a number here; RFC 7519 §2 does not. Nor is a number beyond all floats a time.
        if not isinstance(expiry, int | float) or isinstance(expiry, bool) or expiry > LATEST_EXPIRY:
            raise _refusal("claims")
        if not 1 <= len(subject) <= LONGEST_SUBJECT or not subject.isprintable():
            raise _refusal("claims")
        grants = tuple(_grants(claims.get(self._rules.grants_claim)))
        expires_at = expiry + self._rules.leeway
        return Identity(f"jwt:{subject}", Credential.BEARER_TOKEN, grants, claims, expires_at)


def _header(token: str) -> dict[str, Any]:
    try:
        header = jwt.get_unverified_header(token)
    except PyJWTError:
        raise _refusal("malformed") from None
    # An extension that must be understood (RFC 7515 §4.1.11): we understand none, PyJWT would take b64.
    if "crit" in header or "b64" in header:
        raise _refusal("malformed")
    if str(header.get("typ", "")).lower() not in ACCESS_TYPES:
        raise _refusal("malformed")
    return header


def _grants(claim: object) -> Iterator[Grant]:
    """Parse grants from a list of strings, or from one string separated by spaces; other strings are ignored."""
    texts = claim.split() if isinstance(claim, str) else claim
    for text in texts if isinstance(texts, list) else ():
        if not isinstance(text, str):
            continue
        try:
            yield parse_grant(text)
        except ValueError:
            # Scopes of other systems stand beside ours.
            continue


def _problem(error: PyJWTError) -> str:
    return next((problem for kinds, problem in _PROBLEMS if isinstance(error, kinds)), "malformed")


def _refusal(problem: str) -> Unauthenticated:
    return Unauthenticated(Credential.BEARER_TOKEN, problem, MESSAGES[problem])
