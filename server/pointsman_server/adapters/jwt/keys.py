"""The public keys of an issuer, read from a JWK set (RFC 7517): each for the algorithms that it fits, and no others."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from jwt import PyJWK
from jwt.algorithms import AllowedPublicKeys
from jwt.exceptions import PyJWTError

from pointsman_server.runtime.refreshed import RefreshFailed

# algorithm → what the key must be: its kty, and its crv where the type has curves (RFC 7518 §3.1, RFC 8037 §3.1).
_FITTING: Mapping[str, tuple[str, str]] = {
    **dict.fromkeys(("RS256", "RS384", "RS512", "PS256", "PS384", "PS512"), ("RSA", "")),
    "ES256": ("EC", "P-256"),
    "ES384": ("EC", "P-384"),
    "ES512": ("EC", "P-521"),
    "EdDSA": ("OKP", "Ed25519"),
}
# Upper bound; each key costs work.
MOST_KEYS = 100


@dataclass(frozen=True, slots=True)
class Key:
    """One public key, and the algorithms that it may check."""

    kid: str
    public: AllowedPublicKeys = field(compare=False)
    algorithms: frozenset[str]
    jwk: str
    """The key as it was published: what tells it from another one of the same name."""


@dataclass(frozen=True, slots=True)
class Keys:
    """The keys of one load."""

    all: tuple[Key, ...]

    def named(self, kid: str) -> Key | None:
        """Return the key whose ``kid`` is this, or None."""
        return next((key for key in self.all if key.kid == kid), None)

    def only_one_for(self, algorithm: str) -> Key | None:
        """Return the one key that may check ``algorithm``, or None when none or several may."""
        fitting = [key for key in self.all if algorithm in key.algorithms]
        return fitting[0] if len(fitting) == 1 else None


def parse_keys(text: bytes, algorithms: Iterable[str]) -> Keys:
    """Read a JWK set, for ``algorithms``. Raises RefreshFailed when there is no key in it that can be used.

    What is not used: private and shared keys, keys for encryption, keys of a type or curve that fits no algorithm, and
    all those that share a name (``kid``): it is not clear which one is meant.
    """
    accepted = frozenset(algorithms)
    usable = [key for jwk in _jwks(text) if (key := _key(jwk, accepted)) is not None]
    names = [key.kid for key in usable if key.kid]
    keys = Keys(tuple(key for key in usable if names.count(key.kid) <= 1))
    if not keys.all:
        raise RefreshFailed(f"no key in it is one for {', '.join(sorted(accepted))}, with a kid of its own")
    return keys


def _jwks(text: bytes) -> list[Any]:
    try:
        document = json.loads(text)
    except (ValueError, RecursionError):
        raise RefreshFailed("it is no JSON") from None
    listed = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(listed, list):
        raise RefreshFailed("it is no JWK set: it has no list of keys")
    if len(listed) > MOST_KEYS:
        raise RefreshFailed(f"it has more than {MOST_KEYS} keys")
    return listed


def _key(jwk: Any, accepted: frozenset[str]) -> Key | None:
    if not isinstance(jwk, dict) or not _is_public_for_signatures(jwk):
        return None
    fitting = frozenset(name for name in accepted if _fits(jwk, name))
    kid = jwk.get("kid", "")
    if not fitting or not isinstance(kid, str):
        return None
    try:
        public = PyJWK(jwk, min(fitting)).key
    except (PyJWTError, ValueError, TypeError, ArithmeticError):
        # The texts of these errors hold the key; it is left out like any that is of no use.
        return None
    return Key(kid, public, fitting, json.dumps(jwk, sort_keys=True))


def _is_public_for_signatures(jwk: dict[str, Any]) -> bool:
    operations = jwk.get("key_ops", ["verify"])
    # "d" makes it a private key, published by mistake.
    return "d" not in jwk and jwk.get("use", "sig") == "sig" and isinstance(operations, list) and "verify" in operations


def _fits(jwk: dict[str, Any], algorithm: str) -> bool:
    kty, crv = _FITTING[algorithm]
    return jwk.get("kty") == kty and (not crv or jwk.get("crv") == crv) and jwk.get("alg", algorithm) == algorithm
