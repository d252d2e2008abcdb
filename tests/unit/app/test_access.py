"""app.access: which ways to authenticate the settings turn on, and what must be there at the start."""

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from pointsman_server.adapters.files.policy import PolicyError
from pointsman_server.app import access as module
from pointsman_server.app.access import Access
from pointsman_server.auth.authenticator import CertificateNames, Credentials
from pointsman_server.config.settings import Settings
from pointsman_server.domain.access_errors import AccessUnavailable, Forbidden, Unauthenticated
from pointsman_server.domain.identity import Permission, Scope
from pointsman_server.telemetry.metrics import Metrics
from tests.support.fakes import MemoryApiKeyStore
from tests.support.issuer import AUDIENCE, ISSUER, SigningKey, jwks

POLICY = """
[[grant]]
subjects = ["jwt:checkout"]
roles = ["reader"]
tenants = ["team-a"]
"""
CLIENT_CA = {"tls_cert_file": "c", "tls_key_file": "k", "tls_client_ca_file": "a"}
EC = SigningKey()
SCOPE = Scope("team-a", "prod")


@pytest.fixture
def store(monkeypatch: pytest.MonkeyPatch) -> MemoryApiKeyStore:
    store = MemoryApiKeyStore()
    monkeypatch.setattr(module, "PostgresApiKeyStore", lambda _database: store)
    return store


@pytest.fixture
async def stack() -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def made(**values: Any) -> Access:
    database: Any = None
    return Access(Settings(**values), database, Metrics())


def by_tokens(tmp_path: Path, **values: Any) -> dict[str, Any]:
    return {"jwt_issuer": ISSUER, "jwt_audience": AUDIENCE, "jwt_jwks_file": tmp_path / "keys.json", **values}


def test_without_a_way_to_authenticate_there_is_no_authenticator() -> None:
    access = made()
    assert (access.authenticator, access.permissions, dict(access.keys)) == (None, None, {})


@pytest.mark.parametrize(
    ("ways", "keys"),
    [
        (("keys",), {"api keys"}),
        (("tokens",), {"issuer keys"}),
        (("certificates",), set()),
        (("keys", "tokens", "certificates"), {"api keys", "issuer keys"}),
    ],
)
def test_each_way_to_authenticate_has_its_keys(
    store: MemoryApiKeyStore, tmp_path: Path, ways: tuple[str, ...], keys: set[str]
) -> None:
    values = {"keys": {"api_keys": True}, "tokens": by_tokens(tmp_path), "certificates": CLIENT_CA}
    access = made(**{name: value for way in ways for name, value in values[way].items()})
    assert access.authenticator
    assert access.permissions
    assert set(access.keys) == keys


async def test_a_token_of_the_issuer_is_let_in_and_may_do_what_the_policy_says(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(EC))
    (tmp_path / "policy.toml").write_text(POLICY)
    access = made(**by_tokens(tmp_path, policy_file=tmp_path / "policy.toml"))
    await access.start(stack)
    assert access.authenticator
    assert access.permissions

    identity = await access.authenticator.authenticate(Credentials((f"Bearer {EC.token(sub='checkout')}",)))

    access.permissions.check(identity, Permission.READ, SCOPE)
    with pytest.raises(Forbidden):
        access.permissions.check(identity, Permission.WRITE, SCOPE)


async def test_without_a_policy_an_identity_may_do_what_its_credential_grants_which_is_nothing(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(EC))
    access = made(**by_tokens(tmp_path))
    await access.start(stack)
    assert access.authenticator
    assert access.permissions

    identity = await access.authenticator.authenticate(Credentials((f"Bearer {EC.token()}",)))
    with pytest.raises(Forbidden):
        access.permissions.check(identity, Permission.READ, SCOPE)


@pytest.mark.parametrize("content", [None, "[[grant]]\nroles = 7\n"])
async def test_a_policy_that_cannot_be_read_at_the_start_ends_it(
    tmp_path: Path, stack: AsyncExitStack, content: str | None
) -> None:
    path = tmp_path / "policy.toml"
    if content:
        path.write_text(content)
    access = made(**CLIENT_CA, policy_file=path)
    with pytest.raises(PolicyError):
        await access.start(stack)


async def test_keys_that_cannot_be_read_at_the_start_refuse_those_who_need_them(
    tmp_path: Path, stack: AsyncExitStack
) -> None:
    access = made(**by_tokens(tmp_path), **CLIENT_CA)
    await access.start(stack)
    assert access.authenticator
    assert [keys.has_loaded() for keys in access.keys.values()] == [False]

    with pytest.raises(AccessUnavailable):
        await access.authenticator.authenticate(Credentials((f"Bearer {EC.token()}",)))
    certificate = Credentials((), CertificateNames(dns=("checkout.internal",)))
    assert (await access.authenticator.authenticate(certificate)).subject == "dns:checkout.internal"


async def test_certificates_are_not_taken_unless_they_are_turned_on(tmp_path: Path, stack: AsyncExitStack) -> None:
    (tmp_path / "keys.json").write_bytes(jwks(EC))
    access = made(**by_tokens(tmp_path))
    await access.start(stack)
    assert access.authenticator

    with pytest.raises(Unauthenticated):
        await access.authenticator.authenticate(Credentials((), CertificateNames(dns=("checkout.internal",))))
