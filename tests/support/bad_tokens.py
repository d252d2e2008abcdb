"""Tokens that must be refused, each with the word for what is wrong with it."""

import base64
import hashlib
import hmac
import json
import time
from typing import Any

from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from pointsman_server.adapters.jwt.verifier import LONGEST_TOKEN
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, forged, good_claims

EC, RSA, OKP = SigningKey("ec", "EC"), SigningKey("rsa", "RSA"), SigningKey("okp", "OKP")
"""The keys that the issuer publishes."""

NOW = int(time.time())
BAD_CLAIMS: dict[str, tuple[str, dict[str, Any]]] = {
    "expired": ("expired", {"exp": NOW - 3600}),
    "expired by text": ("claims", {"exp": str(NOW + 86400)}),
    "expiring never": ("malformed", {"exp": "Infinity"}),
    "expiring beyond all numbers": ("claims", {"exp": 10**400}),
    "expiring after all calendars": ("claims", {"exp": 1e300}),
    "expiring at no time": ("malformed", {"exp": float("inf")}),
    "expiring truly": ("expired", {"exp": True}),
    "not yet valid": ("not yet valid", {"nbf": NOW + 86400}),
    "issued in the future": ("not yet valid", {"iat": NOW + 86400}),
    "of another issuer": ("issuer", {"iss": "https://evil.test"}),
    "of an issuer that begins alike": ("issuer", {"iss": ISSUER + "/"}),
    "of an issuer that is no text": ("issuer", {"iss": [ISSUER]}),
    "for another audience": ("audience", {"aud": "billing"}),
    "for other audiences": ("audience", {"aud": ["billing", "pointsman2"]}),
    "for an audience that is no text": ("audience", {"aud": {AUDIENCE: 1}}),
    "without exp": ("claims", {"exp": None}),
    "without aud": ("claims", {"aud": None}),
    "without iss": ("claims", {"iss": None}),
    "without sub": ("claims", {"sub": None}),
    "with an empty sub": ("claims", {"sub": ""}),
    "with a sub that is no text": ("claims", {"sub": 1}),
    "with a sub that is too long": ("claims", {"sub": "x" * 201}),
    "with a line end in its sub": ("claims", {"sub": "a\nb"}),
    "with a NUL in its sub": ("claims", {"sub": "a\x00"}),
    "with an escape in its sub": ("claims", {"sub": "a\x1b[31m"}),
    "with text turned around in its sub": ("claims", {"sub": "a\u202eb"}),
    "with half a character in its sub": ("claims", {"sub": "a\ud800"}),
    "with a jti that is no text": ("claims", {"jti": 5}),
}


def _public_pem(key: SigningKey) -> bytes:
    public: Any = key.private.public_key()
    pem: bytes = public.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)
    return pem


def _signed_with_the_public_key() -> str:
    """The classic: the public key as the secret of HS256 (RFC 8725 §2.1). PyJWT refuses to make one."""
    unsigned = forged({"alg": "HS256", "kid": "rsa"}, good_claims()).rstrip(".")
    signature = hmac.new(_public_pem(RSA), unsigned.encode(), hashlib.sha256).digest()
    return f"{unsigned}.{base64.urlsafe_b64encode(signature).decode().rstrip('=')}"


def _changed(token: str) -> str:
    head, _, signature = token.split(".")
    other = base64.urlsafe_b64encode(json.dumps(good_claims(sub="admin")).encode()).decode().rstrip("=")
    return f"{head}.{other}.{signature}"


BAD_TOKENS: dict[str, tuple[str, str]] = {
    "empty": ("malformed", ""),
    "no token": ("malformed", "nonsense"),
    "no base64": ("malformed", "a.b!.c"),
    "too long": ("malformed", "a" * (LONGEST_TOKEN + 1)),
    "not ASCII": ("malformed", "ä.ö.ü"),
    "of four parts": ("malformed", EC.token() + ".x"),
    "of five parts, as encrypted ones": ("malformed", "a.b.c.d.e"),
    "with a header that is no object": ("malformed", forged([], {})),  # type: ignore[arg-type]
    "with a header nested too deep": ("malformed", base64.urlsafe_b64encode(b"[" * 3000).decode() + ".e30.x"),
    "with claims that are no object": ("signature", forged({"alg": "ES256", "kid": "ec"}, [])),  # type: ignore[arg-type]
    "with a kid that is no text": ("malformed", forged({"alg": "ES256", "kid": 1}, good_claims())),
    "with an extension": ("malformed", EC.token({"crit": ["exp"], "exp": 1})),
    "with the extension b64": ("malformed", forged({"alg": "ES256", "kid": "ec", "b64": True, "crit": ["b64"]}, {})),
    "for logging out": ("malformed", EC.token({"typ": "logout+jwt"})),
    "unsigned": ("unsigned", forged({"alg": "none", "kid": "ec"}, good_claims())),
    "unsigned, oddly spelt": ("unsigned", forged({"alg": "nOnE", "kid": "ec"}, good_claims())),
    "without an algorithm": ("unsigned", forged({"kid": "ec"}, good_claims())),
    "with the public key as a secret": ("algorithm", _signed_with_the_public_key()),
    "of an algorithm that is not accepted": ("algorithm", forged({"alg": "RS512", "kid": "rsa"}, good_claims())),
    "of an algorithm that is no text": ("algorithm", forged({"alg": ["ES256"], "kid": "ec"}, good_claims())),
    "of the algorithm of another key": ("algorithm", forged({"alg": "RS256", "kid": "ec"}, good_claims(), b"x" * 64)),
    "of an unknown key": ("unknown key", SigningKey("other", "EC", 5).token()),
    "of another key of the same name": ("signature", SigningKey("ec", "EC", 5).token()),
    "with its signature cut off": ("signature", EC.token().rpartition(".")[0] + "."),
    "with its signature cut short": ("signature", EC.token()[:-2]),
    "changed": ("signature", _changed(EC.token())),
    "that brings its own key": ("signature", SigningKey("ec", "EC", 5).token({"jwk": SigningKey("ec", "EC", 5).jwk})),
    "that says where its key is": ("unknown key", SigningKey("x", "EC", 5).token({"jku": "https://evil.test/keys"})),
}
