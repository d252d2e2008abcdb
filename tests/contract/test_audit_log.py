"""The law of ``ports.AuditLog`` on PostgreSQL: one row per revision and one chain per epoch, whatever arrives how."""

import asyncio
import random
import uuid
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import replace

import psycopg
import pytest

from pointsman_server.adapters.kafka.decoder import change_from_bytes
from pointsman_server.adapters.kafka.publisher import record
from pointsman_server.adapters.postgres import audit_log as adapter
from pointsman_server.adapters.postgres.audit_log import PostgresAuditLog
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.lineage import PostgresLineage
from pointsman_server.adapters.postgres.migrations import migrate
from pointsman_server.adapters.postgres.relay_log import PostgresRelayLog
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.audit.backfill import AuditBackfill
from pointsman_server.audit.hash_chain import Chain, Verifier, canonical, genesis, link
from pointsman_server.domain.routes import Change, ChangeKind, Draft, RouteKey
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.ports.store import ChangeQuery, Intent
from tests.support.changes import commit, commit_set
from tests.support.engines import create_database, drop_database

INTENT = Intent("ann", "because")


@pytest.fixture(params=["the same database", "one of its own"])
def audit_url(request: pytest.FixtureRequest, database_url: str) -> Iterator[str]:
    if request.param == "the same database":
        yield database_url
        return
    url = create_database(database_url)
    migrate(database_url, url)
    yield url
    drop_database(url)


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[Database]:
    database = Database(url, pool_min=1, pool_max=6, timeout=30.0)
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    async with connected(database_url) as opened:
        yield opened


@pytest.fixture
async def log(audit_url: str, database: Database) -> AsyncIterator[PostgresAuditLog]:
    async with connected(audit_url) as opened:
        yield PostgresAuditLog(opened, PostgresLineage(database))


async def write(database: Database, count: int) -> list[Change]:
    """Make ``count`` changes, and give those of the whole history."""
    store = PostgresStore(database)
    family = uuid.uuid4().hex
    keys = [RouteKey("acme", family, "prod", f"v{number}") for number in range(count)]
    drafts = [Draft(ChangeKind.CREATED, key, None, "https://pay.internal", True, {"a": "1", "b": "2"}) for key in keys]
    await commit(store, drafts, INTENT)
    return await store.list_changes(ChangeQuery(limit=100_000))


async def restore_to(database: Database, revision: int) -> None:
    """Do what a restore and a new epoch do to the history."""
    async with database.connection() as connection:
        await connection.execute("ALTER TABLE route_changes DISABLE TRIGGER USER")
        await connection.execute("DELETE FROM route_changes WHERE revision > %s", [revision])
        await connection.execute("UPDATE clock SET epoch = gen_random_uuid(), revision = %s", [revision])


async def verified(log: PostgresAuditLog) -> dict[str, Chain]:
    verifier = Verifier()
    async for entry in log.entries():
        verifier.feed(entry)
    verifier.finish()
    return {chain.epoch: chain for chain in verifier.chains}


async def only_chain(log: PostgresAuditLog) -> Chain:
    (chain,) = (await verified(log)).values()
    return chain


async def test_an_empty_log_is_sound(log: PostgresAuditLog) -> None:
    assert await verified(log) == {}
    assert await log.last_contiguous() == 0


@pytest.mark.parametrize("largest", [2**15 - 1, 2**31 - 1])
async def test_the_chain_goes_on_past_the_largest_number_of_a_small_type(
    log: PostgresAuditLog, database: Database, largest: int
) -> None:
    async with database.connection() as connection:
        await connection.execute("UPDATE clock SET revision = %s", [largest - 2])
    changes = await write(database, 4)
    await log.append(changes[:2])
    await log.append(changes[2:])
    assert await log.last_contiguous() == largest + 2
    assert (await only_chain(log)).rows == 4


async def test_changes_in_order_are_chained_at_once(log: PostgresAuditLog, database: Database) -> None:
    changes = await write(database, 6)
    await log.append(changes[:2])
    await log.append(changes[2:])
    chain = await only_chain(log)
    expected = genesis(changes[0].epoch)
    for change in changes:
        expected = link(expected, canonical(change))
    assert (chain.rows, chain.first, chain.last, chain.head) == (6, 1, 6, expected)
    assert await log.last_contiguous() == 6


async def test_changes_of_traffic_are_chained_whether_from_the_broker_or_the_history(
    log: PostgresAuditLog, database: Database
) -> None:
    key = RouteKey("acme", "pay", "prod", "v1")
    created = Draft(ChangeKind.CREATED, key, None, "https://pay.internal", True)
    divided = Draft(
        ChangeKind.TRAFFIC_SET,
        key.family_key,
        None,
        division=Division((Target("v1", 9000), Target("v2", 1000)), ("v3",)),
    )
    _, change = await commit_set(PostgresStore(database), [created, divided], INTENT)
    undivided = Draft(ChangeKind.TRAFFIC_DELETED, key.family_key, None, traffic_before=change.traffic_after)
    await commit_set(PostgresStore(database), [undivided], INTENT)
    changes = await PostgresStore(database).list_changes(ChangeQuery())
    delivered = [change_from_bytes(record(change).value) for change in changes]
    assert delivered == changes
    await log.append(delivered)
    await log.append(changes)
    expected = genesis(changes[0].epoch)
    for change in changes:
        expected = link(expected, canonical(change))
    chain = await only_chain(log)
    assert (chain.rows, chain.head) == (3, expected)


async def test_the_chain_waits_for_what_is_missing(log: PostgresAuditLog, database: Database) -> None:
    changes = await write(database, 6)
    for revision, last, waiting in ((2, 0, 1), (4, 0, 2), (1, 2, 1), (6, 2, 2), (5, 2, 3), (3, 6, 0)):
        await log.append([changes[revision - 1]])
        found = await only_chain(log)
        assert ((found.last, found.waiting) if found.head else (0, found.waiting)) == (last, waiting)
        assert await log.last_contiguous() == last


async def test_what_comes_twice_has_one_row_and_the_first_one_counts(
    log: PostgresAuditLog, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    changes = await write(database, 3)
    await log.append([changes[0], changes[0], changes[1]])
    await log.append(changes)
    assert caplog.text == ""
    await log.append([replace(changes[0], actor="mallory"), *changes])
    assert f"another change came as revision 1 of epoch {changes[0].epoch}" in caplog.text
    chain = await only_chain(log)
    assert (chain.rows, chain.waiting) == (3, 0)
    assert [entry.change async for entry in log.entries()][1:] == [canonical(change) for change in changes]


async def test_any_order_gives_the_same_chain(log: PostgresAuditLog, database: Database) -> None:
    changes = await write(database, 200)
    shuffled = random.Random(7).sample(changes, len(changes))
    for start in range(0, 200, 13):
        await log.append(shuffled[start : start + 13])
    chain = await only_chain(log)
    expected = genesis(changes[0].epoch)
    for change in changes:
        expected = link(expected, canonical(change))
    assert (chain.rows, chain.head, chain.waiting) == (200, expected, 0)


async def test_several_appenders_at_once_make_one_chain(
    log: PostgresAuditLog, audit_url: str, database: Database
) -> None:
    changes = await write(database, 120)

    async def consume(seed: int, into: PostgresAuditLog) -> None:
        shuffled = random.Random(seed).sample(changes, len(changes))
        for start in range(0, len(shuffled), 5):
            await into.append(shuffled[start : start + 5])

    async with connected(audit_url) as second:
        other = PostgresAuditLog(second, PostgresLineage(database))
        await asyncio.gather(*(consume(seed, into) for seed, into in enumerate([log, other] * 2)))
    chain = await only_chain(log)
    assert (chain.rows, chain.last, chain.waiting) == (120, 120, 0)


async def test_after_a_restore_nothing_of_the_new_history_is_lost_to_the_old(
    log: PostgresAuditLog, database: Database
) -> None:
    old = await write(database, 6)
    await log.append(old[:5])
    await restore_to(database, 3)
    new = await write(database, 4)
    await log.append([new[5], new[4]])
    await log.append([old[5], new[6], new[3], *new[:3]])
    chains = await verified(log)
    assert {epoch: (chain.rows, chain.first, chain.last, chain.waiting) for epoch, chain in chains.items()} == {
        old[0].epoch: (6, 1, 6, 0),
        new[-1].epoch: (4, 4, 7, 0),
    }
    assert await log.last_contiguous() == 7


async def test_what_was_lost_in_a_restore_is_kept_and_waits(log: PostgresAuditLog, database: Database) -> None:
    lost = await write(database, 2)
    await restore_to(database, 0)
    new = await write(database, 1)
    await log.append([*lost, *new])
    chains = await verified(log)
    assert (chains[lost[0].epoch].rows, chains[lost[0].epoch].waiting) == (0, 2)
    assert (chains[new[0].epoch].rows, chains[new[0].epoch].waiting) == (1, 0)


async def test_the_lineage_is_the_epochs_in_order(database: Database) -> None:
    lineage = PostgresLineage(database)
    assert await lineage.spans() == []
    epochs = []
    for count in (1, 30, 7):
        epochs.append((await write(database, count))[-1].epoch)
        async with database.connection() as connection:
            await connection.execute("UPDATE clock SET epoch = gen_random_uuid()")
    found = [(span.epoch, span.first, span.last) for span in await lineage.spans()]
    assert found == [(epochs[0], 1, 1), (epochs[1], 2, 31), (epochs[2], 32, 38)]


async def test_a_long_way_is_made_in_steps(
    log: PostgresAuditLog, database: Database, audit_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    changes = await write(database, 50)
    rows = [(change.epoch, change.revision, canonical(change)) for change in changes]
    with psycopg.connect(audit_url, autocommit=True) as connection, connection.cursor() as cursor:
        cursor.executemany("INSERT INTO audit_log (epoch, revision, change) VALUES (%s, %s, %s)", rows)
    monkeypatch.setattr(adapter, "WINDOW", 7)
    (span,) = await PostgresLineage(database).spans()
    assert await log.extend(span) == 50
    assert (await only_chain(log)).rows == 50


async def test_what_does_not_come_is_copied_from_the_history(log: PostgresAuditLog, database: Database) -> None:
    await write(database, 5)
    async with database.connection() as connection:
        await connection.execute("UPDATE clock SET epoch = gen_random_uuid()")
    changes = await write(database, 5)
    published = 9

    async def relay() -> int:
        return published

    await log.append([changes[1], changes[6]])
    keeper = AuditBackfill(log, PostgresLineage(database), PostgresStore(database), relay)
    await keeper.round()
    # At first it may still be on its way.
    assert await log.last_contiguous() == 0
    await keeper.round()
    # What Kafka does not have yet is left to it.
    assert (keeper.chained, await log.last_contiguous()) == (9, 9)
    published = 10
    await log.append([changes[9]])
    await keeper.round()
    assert keeper.chained == 10
    assert sorted(chain.rows for chain in (await verified(log)).values()) == [5, 5]


async def test_a_relay_that_was_rewound_stops_nothing(log: PostgresAuditLog, database: Database) -> None:
    changes = await write(database, 3)
    await log.append(changes)
    relay_log = PostgresRelayLog(database)

    async def published() -> int:
        return (await relay_log.state()).published

    keeper = AuditBackfill(log, PostgresLineage(database), PostgresStore(database), published)
    await keeper.round()
    await keeper.round()
    assert keeper.chained == 3
