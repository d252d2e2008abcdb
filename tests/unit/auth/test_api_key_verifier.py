"""Who shows an API key: by what is in memory, and never more said than the caller shows."""

import time
from datetime import timedelta

import pytest

from pointsman_server.auth.api_key_verifier import ApiKeyVerifier
from pointsman_server.domain.access_errors import AccessUnavailable, Unauthenticated
from pointsman_server.domain.api_keys import ApiKey, mint
from pointsman_server.domain.grants import parse_grant
from pointsman_server.domain.identity import Credential
from pointsman_server.ports.credentials import KeyDraft
from tests.support.fakes import MemoryApiKeyStore

GRANTS = (parse_grant("reader:team-a"),)
DAY = timedelta(days=1)


@pytest.fixture
def store() -> MemoryApiKeyStore:
    return MemoryApiKeyStore()


@pytest.fixture
async def verifier(store: MemoryApiKeyStore) -> ApiKeyVerifier:
    verifier = ApiKeyVerifier(store, interval=5)
    await verifier.known.renew()
    return verifier


async def make(store: MemoryApiKeyStore, name: str = "ci", lifetime: timedelta | None = DAY) -> tuple[ApiKey, str]:
    minted = mint()
    return await store.create(KeyDraft(name, GRANTS, "ann", lifetime), minted), minted.text


async def problem(verifier: ApiKeyVerifier, credential: str) -> str:
    with pytest.raises(Unauthenticated) as caught:
        await verifier.verify(credential)
    assert caught.value.metadata["credential"] == "api key"
    assert len(credential) < 20 or credential[15:30] not in str(caught.value)
    return caught.value.problem


async def test_a_key_says_who_calls_and_what_it_grants(store: MemoryApiKeyStore, verifier: ApiKeyVerifier) -> None:
    key, text = await make(store)
    await verifier.known.renew()
    who = await verifier.verify(text)
    assert (who.subject, who.credential, who.grants) == ("key:ci", Credential.API_KEY, GRANTS)
    assert key.expires_at
    assert who.expires_at == key.expires_at.timestamp()
    # The same object, so that decisions about it are remembered.
    assert await verifier.verify(text) is who


async def test_before_the_keys_were_read_nothing_is_said(store: MemoryApiKeyStore) -> None:
    store.away = True
    verifier = ApiKeyVerifier(store, interval=5)
    await verifier.known.renew()
    with pytest.raises(AccessUnavailable):
        await verifier.verify(mint().text)


async def test_what_is_no_whole_key_is_malformed(verifier: ApiKeyVerifier) -> None:
    for credential in ("", "pmk_", "eyJhbGciOiJub25lIn0.e30.", mint().text[:-1], mint().text + "x"):
        assert await problem(verifier, credential) == "malformed"


async def test_a_key_that_is_new_is_found_by_one_more_look(store: MemoryApiKeyStore) -> None:
    verifier = ApiKeyVerifier(store, interval=1e-6)
    await verifier.known.renew()
    _, text = await make(store)
    assert (await verifier.verify(text)).subject == "key:ci"


async def test_a_flood_of_unknown_keys_asks_the_store_no_more(
    store: MemoryApiKeyStore, verifier: ApiKeyVerifier
) -> None:
    assert {await problem(verifier, mint().text) for _ in range(100)} == {"unknown key"}
    assert store.reads <= 2


async def test_only_the_holder_of_the_secret_learns_that_the_key_was_revoked_or_expired(
    store: MemoryApiKeyStore, verifier: ApiKeyVerifier
) -> None:
    texts = {}
    for name, lifetime in (("living", DAY), ("revoked", DAY), ("expired", timedelta(seconds=-1))):
        key, texts[name] = await make(store, name, lifetime)
        # The id is known, and the check is right.
        other = mint()
        store.keys[-1] = ApiKey(key.id, name, other.digest, GRANTS, key.created_at, "ann", key.expires_at)
    await store.revoke("revoked", "bob")
    await verifier.known.renew()
    assert [await problem(verifier, text) for text in texts.values()] == ["secret"] * 3


async def test_a_revoked_and_an_expired_key_are_told_apart(store: MemoryApiKeyStore, verifier: ApiKeyVerifier) -> None:
    _, revoked = await make(store, "revoked")
    await store.revoke("revoked", "bob")
    _, expired = await make(store, "expired", timedelta(seconds=-1))
    await verifier.known.renew()
    assert [await problem(verifier, text) for text in (revoked, expired)] == ["revoked", "expired"]


async def test_a_key_expires_to_the_second_without_another_look(store: MemoryApiKeyStore) -> None:
    key, text = await make(store)
    assert key.expires_at
    moment = [key.expires_at.timestamp() - 0.001]
    verifier = ApiKeyVerifier(store, interval=5, now=lambda: moment[0])
    await verifier.known.renew()
    assert (await verifier.verify(text)).subject == "key:ci"
    moment[0] += 0.001
    assert await problem(verifier, text) == "expired"
    assert store.reads == 1


async def test_the_version_is_another_whenever_a_key_is(store: MemoryApiKeyStore) -> None:
    key, _ = await make(store)
    assert key.expires_at
    moment = [key.expires_at.timestamp() - 1]
    verifier = ApiKeyVerifier(store, interval=5, now=lambda: moment[0])
    versions = []

    async def note() -> None:
        await verifier.known.renew()
        versions.append(verifier.version)

    await note()
    await note()  # nothing happened
    moment[0] += 2  # expired
    await note()
    await make(store, "other")  # made
    await note()
    await store.revoke("other", "bob")  # revoked
    await note()
    assert versions == [1, 1, 2, 3, 4]


async def test_with_the_store_away_the_last_keys_stay(store: MemoryApiKeyStore) -> None:
    heard: list[bool] = []
    verifier = ApiKeyVerifier(store, interval=5, on_result=heard.append)
    _, text = await make(store)
    await verifier.known.renew()
    store.away = True
    await verifier.known.renew()
    assert (await verifier.verify(text)).subject == "key:ci"
    assert heard == [True, False]
    assert verifier.known.problem == "the store cannot be reached"


async def test_during_a_rotation_both_keys_are_the_same_caller(
    store: MemoryApiKeyStore, verifier: ApiKeyVerifier
) -> None:
    _, old = await make(store)
    minted = mint()
    await store.rotate(KeyDraft("ci", (), "ann", None), minted, DAY)
    await verifier.known.renew()
    for text in (old, minted.text):
        who = await verifier.verify(text)
        assert (who.subject, who.grants) == ("key:ci", GRANTS)


async def test_a_subject_is_that_of_its_newest_valid_key(store: MemoryApiKeyStore, verifier: ApiKeyVerifier) -> None:
    assert verifier.identity_of("key:ci") is None
    await make(store)
    await make(store, "other")
    minted = mint()
    await store.rotate(KeyDraft("ci", (), "ann", None), minted, DAY)
    await verifier.known.renew()

    assert verifier.identity_of("key:ci") is await verifier.verify(minted.text)
    assert verifier.identity_of("key:c") is None
    assert verifier.identity_of("ci") is None


async def test_a_key_that_has_ended_is_nobody(store: MemoryApiKeyStore) -> None:
    now = [time.time()]
    verifier = ApiKeyVerifier(store, interval=5, now=lambda: now[0])
    await make(store, "gone")
    await make(store, "brief")
    await store.revoke("gone", "ann")
    await verifier.known.renew()
    assert verifier.identity_of("key:gone") is None
    assert verifier.identity_of("key:brief")

    now[0] += 2 * DAY.total_seconds()
    assert verifier.identity_of("key:brief") is None
