"""The key set of an issuer as bytes."""

import json
from typing import Any

from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from pointsman_server.adapters.jwt.keys import MOST_KEYS, Key, parse_keys
from pointsman_server.config.types import ALGORITHMS
from pointsman_server.runtime.refreshed import RefreshFailed
from tests.fuzz.callers import JWKS
from tests.fuzz.hostile import CANARY

MODULES = ("pointsman_server.adapters.jwt", "jwt")
LONGEST = 4096
OKP, EC = JWKS
# RFC 7517 appendix A.1.
RSA = {
    "kty": "RSA",
    "n": "0vx7agoebGcQSuuPiLJXZptN9nndrQmbXEps2aiAFbWhM78LhWx4cbbfAAtVT86zwu1RK7aPFFxuhDR1L6tSoc_BJECPebWKRXjBZCiFV4"
    "n3oknjhMstn64tZ_2W-5JsGY4Hc5n9yBXArwl93lqt7_RN5w6Cf0h4QyQ5v-65YGjQR0_FDW2QvzqY368QQMicAtaSqzs8KJZgnYb9c7d0zgdAZHzu6qMQvRL5"
    "hajrn1n91CbOpbISD08qNLyrdkt-bFTWhAI4vMQFh6WeZu0fM4lFd2NcRwr3XPksINHaQ-G_xBniIqbw0Ls1jF44-csFCur-kEgU8awapJzKnqDKgw",
    "e": "AQAB",
    "kid": "rsa",
}


def _each(key: dict[str, Any], *changes: dict[str, Any]) -> list[dict[str, Any]]:
    return [key | change for change in changes]


STRANGE = (
    *_each(RSA, {"e": "AQ"}, {"e": ""}, {"n": "AQAB"}, {"n": 1}, {"n": "AA"}, {"d": CANARY}, {"kid": 1}),
    *_each(EC, {"x": CANARY}, {"y": ""}, {"crv": "P-384"}, {"crv": []}, {"alg": "none"}, {"x": "AAAA"}),
    *_each(OKP, {"x": "AA"}, {"crv": "X25519"}, {"use": "enc"}, {"key_ops": "verify"}, {"key_ops": []}),
    {"kty": "oct", "k": CANARY, "alg": "HS256"},
)


def _set(*keys: object) -> bytes:
    return json.dumps({"keys": keys}).encode()


SEEDS = (
    *(_set(key) for key in (OKP, EC, RSA, *STRANGE, 1, None, {})),
    _set(OKP, EC, RSA),
    _set(OKP, OKP),
    _set(*([{}] * 101)),
    *(
        b"",
        b"{}",
        b"[]",
        b'{"keys":{}}',
        b"\xff",
        b"[" * 3000,
        b'{"keys":' + b"[" * 3000,
        b'{"keys":[' + b'{"a":' * 900,
    ),
    b'{"keys":[' + json.dumps(EC)[:-1].encode() + b',"kid":"\\ud800"}]}',
)
WORDS = tuple(f'"{word}"'.encode() for word in (*OKP, *RSA, *ALGORITHMS, "P-256", "P-521", "Ed25519", "d", "k", "oct"))


def check(data: bytes) -> None:
    """Read the bytes as a key set."""
    try:
        keys = parse_keys(data, ALGORITHMS)
    except RefreshFailed as error:
        assert str(error).isprintable()
        assert CANARY not in str(error), "repeats a key"
        return
    assert 1 <= len(keys.all) <= MOST_KEYS
    names = [key.kid for key in keys.all if key.kid]
    assert len(names) == len(set(names)), "two keys of one name"
    for key in keys.all:
        _judge(key)
        assert not key.kid or keys.named(key.kid) is key


def _judge(key: Key) -> None:
    public = key.public
    assert isinstance(public, rsa.RSAPublicKey | ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey), "no public key"
    assert key.algorithms
    kind = {"R": rsa.RSAPublicKey, "P": rsa.RSAPublicKey, "E": ec.EllipticCurvePublicKey}
    for algorithm in key.algorithms - {"EdDSA"}:
        assert isinstance(public, kind[algorithm[0]]), f"{algorithm} by another kind of key"
    assert ("EdDSA" in key.algorithms) == isinstance(public, ed25519.Ed25519PublicKey)
