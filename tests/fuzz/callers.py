"""Callers for the fuzz targets, with the same keys in every process, and the rules for their refusals."""

import asyncio
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from jwt.algorithms import ECAlgorithm, OKPAlgorithm

from pointsman_server.adapters.jwt.verifier import MESSAGES
from pointsman_server.auth.api_key_verifier import ApiKeyVerifier
from pointsman_server.auth.authenticator import Authenticator, limit_of_failures
from pointsman_server.domain import api_keys
from pointsman_server.domain.access_errors import Unauthenticated
from pointsman_server.domain.api_keys import ApiKey
from pointsman_server.domain.grants import parse_grant
from pointsman_server.domain.identity import Credential
from pointsman_server.ports.credentials import CredentialVerifier
from tests.fuzz.hostile import CANARY
from tests.support.fakes import MemoryApiKeyStore

ED25519 = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
P256 = ec.derive_private_key(2**200 + 7, ec.SECP256R1())
STRANGER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
JWKS = (
    OKPAlgorithm.to_jwk(ED25519.public_key(), as_dict=True) | {"kid": "okp", "use": "sig"},
    ECAlgorithm.to_jwk(P256.public_key(), as_dict=True) | {"kid": "ec", "alg": "ES256"},
)

# The problems that a refusal may name, as docs/security.md lists them.
PROBLEMS = frozenset(MESSAGES) | {"missing", "ambiguous", "scheme", "not enabled", "secret", "revoked"}
BOTTOMLESS = limit_of_failures(1e9)


def key_text(number: int) -> tuple[str, str]:
    """Return the id and the text of an API key for tests."""
    key_id = f"abcdefghi{'abcdefgh'[number]}"
    text = f"pmk_{key_id}_{str(number) * 43}"
    return key_id, text + api_keys._check(text)


def kept(number: int, *grants: str) -> ApiKey:
    """Return the key of ``number`` as the database stores it."""
    key_id, text = key_text(number)
    _, secret = api_keys.parse(text)
    made = datetime(2026, 1, 1, tzinfo=UTC)
    return ApiKey(key_id, f"key-{number}", api_keys.digest_of(secret), tuple(map(parse_grant, grants)), made, "ann")


def key_verifier(*keys: ApiKey) -> ApiKeyVerifier:
    """Return a verifier that has loaded ``keys`` once."""
    store = MemoryApiKeyStore()
    store.keys += keys
    verifier = ApiKeyVerifier(store, interval=3600)
    asyncio.run(verifier.known.renew())
    return verifier


def authenticator(
    api_keys: CredentialVerifier | None = None, tokens: CredentialVerifier | None = None
) -> Authenticator:
    """Return an authenticator that caches one credential and does not limit failures."""
    return Authenticator(tokens=tokens, api_keys=api_keys, failures=BOTTOMLESS, most_remembered=1)


def check_refusal(error: Unauthenticated, shown: str) -> None:
    """Raise AssertionError unless a refusal is a documented one and repeats nothing of the credential."""
    assert error.problem in PROBLEMS, f"{error.problem} is not documented"
    assert error.metadata == {"credential": Credential(error.metadata["credential"]), "problem": error.problem}
    assert error.message.isprintable()
    assert CANARY not in error.message
    assert error.__cause__ is None, "the texts of libraries quote the input"
    longest = max(shown.replace(",", " ").split(), key=len, default="")
    assert len(longest) < 12 or longest not in error.message, f"repeats the credential: {error.message}"
