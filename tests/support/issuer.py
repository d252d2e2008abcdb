"""An issuer of tokens with real keys, for tests of both sides: its JWK set, and tokens good and bad."""

import base64
import json
import time
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from jwt import api_jws
from jwt.algorithms import AllowedPrivateKeys, ECAlgorithm, OKPAlgorithm, RSAAlgorithm

ISSUER = "https://issuer.test"
AUDIENCE = "pointsman"


@cache
def private_key(kind: str, number: int = 0) -> AllowedPrivateKeys:
    """Make the private key of ``kind`` (RSA, EC, OKP) and ``number``, once: RSA takes its time."""
    del number
    if kind == "RSA":
        return rsa.generate_private_key(public_exponent=65537, key_size=2048)
    return ec.generate_private_key(ec.SECP256R1()) if kind == "EC" else ed25519.Ed25519PrivateKey.generate()


_ALGORITHMS = {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}


@dataclass(frozen=True)
class SigningKey:
    """One key of an issuer."""

    kid: str = "key-1"
    kind: str = "EC"
    number: int = 0
    more: dict[str, Any] = field(default_factory=dict)

    @property
    def private(self) -> AllowedPrivateKeys:
        """What signs."""
        return private_key(self.kind, self.number)

    @property
    def algorithm(self) -> str:
        """How it signs."""
        return _ALGORITHMS[self.kind]

    @property
    def jwk(self) -> dict[str, Any]:
        """What is published of it (RFC 7517)."""
        public: Any = self.private.public_key()
        maker: Any = {"RSA": RSAAlgorithm, "EC": ECAlgorithm, "OKP": OKPAlgorithm}[self.kind]
        named = {"kid": self.kid} if self.kid else {}
        return {**maker.to_jwk(public, as_dict=True), "use": "sig", "alg": self.algorithm, **named, **self.more}

    def token(self, headers: dict[str, Any] | None = None, **claims: Any) -> str:
        """Sign a good token, but for ``claims`` and ``headers``; a claim that is None is left out."""
        named = {"kid": self.kid} if self.kid else {}
        payload = json.dumps(good_claims(**claims)).encode()
        return api_jws.encode(payload, self.private, self.algorithm, {**named, **(headers or {})})


def good_claims(**other: Any) -> dict[str, Any]:
    """Give the claims of a good token, with others in their place."""
    now = int(time.time())
    claims = {"iss": ISSUER, "aud": AUDIENCE, "sub": "checkout", "iat": now, "exp": now + 600} | other
    return {name: value for name, value in claims.items() if value is not None}


def jwks(*keys: SigningKey | dict[str, Any]) -> bytes:
    """Write a JWK set."""
    return json.dumps({"keys": [key.jwk if isinstance(key, SigningKey) else key for key in keys]}).encode()


def forged(headers: dict[str, Any], claims: dict[str, Any], signature: bytes = b"") -> str:
    """Put together what no honest library signs."""
    parts = (json.dumps(headers).encode(), json.dumps(claims).encode(), signature)
    return ".".join(base64.urlsafe_b64encode(part).decode().rstrip("=") for part in parts)
