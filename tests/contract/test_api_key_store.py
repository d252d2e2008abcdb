"""The law of ``ports.ApiKeyStore``, on PostgreSQL and on the fake of the unit tests."""

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta

import psycopg
import pytest

from pointsman_server.adapters.postgres.api_key_store import PostgresApiKeyStore
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.domain.api_keys import ApiKey, mint
from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.grants import parse_grant
from pointsman_server.ports.credentials import ApiKeyStore, KeyDraft, KeyNameTaken, KeyNotFound
from tests.support.fakes import MemoryApiKeyStore

GRANTS = (parse_grant("reader:team-a"), parse_grant("reader+writer:team-b:prod"))
DAY, PAST = timedelta(days=1), timedelta(seconds=-1)


@pytest.fixture(params=["postgres", "memory"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[ApiKeyStore]:
    if request.param == "memory":
        yield MemoryApiKeyStore()
        return
    database = Database(request.getfixturevalue("database_url"), pool_min=1, pool_max=4)
    await database.open()
    yield PostgresApiKeyStore(database)
    await database.close()


def draft(name: str = "ci", lifetime: timedelta | None = DAY) -> KeyDraft:
    return KeyDraft(name, GRANTS, "ann", lifetime)


async def make(store: ApiKeyStore, name: str = "ci", lifetime: timedelta | None = DAY) -> ApiKey:
    return await store.create(draft(name, lifetime), mint())


def names(keys: list[ApiKey]) -> list[tuple[str, str]]:
    return [(key.name, key.id) for key in keys]


async def test_what_is_made_is_known(store: ApiKeyStore) -> None:
    minted = mint()
    key = await store.create(draft(), minted)
    assert (key.id, key.digest, key.name, key.grants, key.created_by) == (minted.id, minted.digest, "ci", GRANTS, "ann")
    assert key.expires_at == key.created_at + DAY
    assert (key.replaced_at, key.revoked_at, key.revoked_by) == (None, None, "")
    assert await store.known() == [key]


async def test_a_key_may_live_for_ever(store: ApiKeyStore) -> None:
    assert (await make(store, lifetime=None)).expires_at is None
    assert len(await store.known()) == 1


async def test_keys_are_ordered_by_name(store: ApiKeyStore) -> None:
    made = [await make(store, name) for name in ("b", "a", "C")]
    assert names(await store.known()) == names([made[2], made[1], made[0]])


async def test_a_name_is_taken_by_a_living_key(store: ApiKeyStore) -> None:
    await make(store)
    with pytest.raises(KeyNameTaken):
        await make(store)


async def test_a_name_is_free_again_when_its_key_expired_or_was_revoked(store: ApiKeyStore) -> None:
    await make(store, lifetime=PAST)
    await make(store)
    await store.revoke("ci", "bob")
    third = await make(store)
    assert names(await store.known())[-1] == ("ci", third.id)


async def test_of_many_who_make_a_name_at_once_one_does(store: ApiKeyStore) -> None:
    results = await asyncio.gather(*(make(store) for _ in range(8)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["ApiKey", *["KeyNameTaken"] * 7]


async def test_a_rotation_leaves_both_until_the_overlap_is_over(store: ApiKeyStore) -> None:
    old = await make(store)
    new = await store.rotate(KeyDraft("ci", (), "bob", None), mint(), timedelta(hours=1))
    known = {key.id: key for key in await store.known()}
    assert (new.grants, new.created_by, new.expires_at, new.replaced_at) == (GRANTS, "bob", None, None)
    replaced = known[old.id]
    assert replaced.replaced_at
    assert replaced.expires_at == replaced.replaced_at + timedelta(hours=1)
    assert set(known) == {old.id, new.id}


async def test_a_rotation_makes_no_key_live_longer(store: ApiKeyStore) -> None:
    old = await make(store)
    await store.rotate(draft(), mint(), 9 * DAY)
    assert {key.id: key.expires_at for key in await store.known()}[old.id] == old.expires_at


async def test_a_rotation_of_nothing_that_lives_makes_nothing(store: ApiKeyStore) -> None:
    await make(store, "expired", PAST)
    await make(store, "revoked")
    await store.revoke("revoked", "bob")
    for name in ("none", "expired", "revoked"):
        with pytest.raises(KeyNotFound):
            await store.rotate(draft(name), mint(), DAY)
    assert len(await store.known()) == 2


async def test_of_many_who_rotate_at_once_each_replaces_another_or_none(store: ApiKeyStore) -> None:
    await make(store)
    await asyncio.gather(*(store.rotate(draft(), mint(), DAY) for _ in range(8)), return_exceptions=True)
    assert len([key for key in await store.known() if not key.replaced_at]) == 1


async def test_a_name_revokes_all_its_living_keys_and_an_id_that_one(store: ApiKeyStore) -> None:
    old = await make(store)
    new = await store.rotate(draft(), mint(), DAY)
    (first,) = await store.revoke(old.id, "bob")
    assert (first.id, first.revoked_by) == (old.id, "bob")
    assert first.revoked_at
    newest = await store.rotate(draft(), mint(), DAY)
    assert set(names(await store.revoke("ci", "bob"))) == {("ci", new.id), ("ci", newest.id)}
    assert all(key.revoked_at for key in await store.known())


async def test_what_does_not_live_is_not_revoked_again(store: ApiKeyStore) -> None:
    await make(store, "expired", PAST)
    key = await make(store)
    await store.revoke("ci", "bob")
    for which in ("ci", key.id, "expired", "none", ""):
        with pytest.raises(KeyNotFound):
            await store.revoke(which, "eve")
    assert {key.revoked_by for key in await store.known()} == {"", "bob"}


async def test_what_ended_a_month_ago_is_forgotten(store: ApiKeyStore) -> None:
    await make(store, "old", timedelta(days=-31))
    recent = await make(store, "recent", timedelta(days=-29))
    assert names(await store.known()) == names([recent])


async def test_a_grant_of_a_later_version_grants_nothing_and_the_others_count(database_url: str) -> None:
    database = Database(database_url, pool_min=1, pool_max=1)
    await database.open()
    store = PostgresApiKeyStore(database)
    await make(store)
    with psycopg.connect(database_url, autocommit=True) as connection:
        connection.execute("UPDATE api_keys SET grants = '{emperor:*,reader:team-a}'")
    assert [key.grants for key in await store.known()] == [(parse_grant("reader:team-a"),)]
    # And it outlives a rotation by a server that does not understand it.
    await store.rotate(draft(), mint(), DAY)
    with psycopg.connect(database_url) as connection:
        rows = connection.execute("SELECT grants FROM api_keys").fetchall()
    assert rows == [(["emperor:*", "reader:team-a"],)] * 2
    await database.close()


async def test_no_secret_lies_in_the_database(database_url: str) -> None:
    database = Database(database_url, pool_min=1, pool_max=1)
    await database.open()
    minted = mint()
    await PostgresApiKeyStore(database).create(draft(), minted)
    with psycopg.connect(database_url) as connection:
        (row,) = connection.execute("SELECT api_keys::text FROM api_keys").fetchone() or ("",)
    assert minted.id in row
    assert minted.text.split("_")[2][:20] not in row
    await database.close()


async def test_a_database_that_is_away_is_said_to_be(unused_tcp_port: int) -> None:
    database = Database(f"postgresql://u@127.0.0.1:{unused_tcp_port}/d", pool_min=0, pool_max=2, timeout=1)
    await database.open()
    store = PostgresApiKeyStore(database)
    for work in (store.known(), store.create(draft(), mint()), store.revoke("ci", "x")):
        with pytest.raises(StoreUnavailable):
            await work
    await database.close()
