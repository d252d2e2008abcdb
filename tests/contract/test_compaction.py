"""What a compaction deletes, what it keeps, and what the rest is worth."""

from collections.abc import AsyncIterator
from datetime import timedelta
from typing import LiteralString

import psycopg
import pytest
from psycopg import sql

from pointsman_server.adapters.postgres.audit_log import PostgresAuditLog
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.history import compaction as adapter
from pointsman_server.adapters.postgres.history.compaction import (
    AuditCompaction,
    AuditPlan,
    HistoryCompaction,
    HistoryPlan,
)
from pointsman_server.adapters.postgres.lineage import PostgresLineage
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.audit.hash_chain import BrokenChain, Chain, Verifier
from pointsman_server.domain.routes import Change, ChangeKind, Draft, RouteKey
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.ports.store import ChangeQuery, Intent
from tests.support.changes import commit, commit_set

NOW = timedelta(0)
DAY = timedelta(days=1)


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    opened = Database(database_url, pool_min=1, pool_max=4, timeout=30.0)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def log(database: Database) -> PostgresAuditLog:
    return PostgresAuditLog(database, PostgresLineage(database))


async def write(database: Database, *names: str) -> list[Change]:
    """Make a change set: a route of each name."""
    keys = [RouteKey("acme", "pay", "prod", name) for name in names]
    drafts = [Draft(ChangeKind.CREATED, key, None, "https://pay.internal", True) for key in keys]
    return await commit(PostgresStore(database), drafts, Intent("ann", "because"))


async def execute(database: Database, *statements: LiteralString, **values: object) -> None:
    async with database.connection() as connection:
        for statement in statements:
            await connection.execute(statement, values if "%(" in statement else None)


async def age(database: Database, until: int) -> None:
    """Make what is up to a revision two days older."""
    await execute(
        database,
        "ALTER TABLE route_changes DISABLE TRIGGER USER",
        "UPDATE route_changes SET occurred_at = occurred_at - interval '2 days' WHERE revision <= %(until)s",
        "ALTER TABLE route_changes ENABLE TRIGGER USER",
        "ALTER TABLE audit_log DISABLE TRIGGER USER",
        "UPDATE audit_log SET recorded_at = recorded_at - interval '2 days' WHERE revision <= %(until)s",
        "ALTER TABLE audit_log ENABLE TRIGGER USER",
        until=until,
    )


async def publish(database: Database, until: int) -> None:
    await execute(database, "UPDATE relay SET revision = %(until)s", until=until)


async def kept(database: Database) -> list[int]:
    return [change.revision for change in await PostgresStore(database).list_changes(ChangeQuery(limit=1000))]


async def compact(database: Database, older_than: timedelta, audited: int) -> HistoryPlan:
    compaction = HistoryCompaction(database)
    plan = await compaction.plan(older_than, audited)
    assert sum([rows async for rows in compaction.run(plan)]) == plan.rows
    return plan


async def compact_audit(database: Database, older_than: timedelta) -> list[AuditPlan]:
    compaction = AuditCompaction(database)
    plans = await compaction.plan(older_than)
    for plan in plans:
        assert sum([rows async for rows in compaction.run(plan)]) == plan.rows
    return plans


async def verified(log: PostgresAuditLog) -> list[Chain]:
    verifier = Verifier()
    async for entry in log.entries():
        verifier.feed(entry)
    verifier.finish()
    return verifier.chains


async def test_what_is_older_goes_and_every_route_stays(database: Database) -> None:
    for name in "abcdef":
        await write(database, name)
    await publish(database, 6)
    await age(database, 4)

    assert await compact(database, DAY, audited=6) == HistoryPlan(4, 4)

    assert await kept(database) == [5, 6]
    store = PostgresStore(database)
    assert await store.compacted() == 4
    keys = [RouteKey("acme", "pay", "prod", name) for name in "abcdef"]
    assert all(snapshot.route for snapshot in await store.load(keys))
    assert await compact(database, DAY, audited=6) == HistoryPlan(4, 0)


@pytest.mark.parametrize(
    ("published", "audited", "expected"),
    [
        (2, 5, HistoryPlan(2, 2, "the broker")),
        (5, 3, HistoryPlan(3, 3, "the audit log")),
        (0, 0, HistoryPlan(0, 0, "the audit log")),
    ],
)
async def test_what_the_broker_or_the_audit_log_does_not_have_stays(
    database: Database, published: int, audited: int, expected: HistoryPlan
) -> None:
    for name in "abcde":
        await write(database, name)
    await publish(database, published)

    assert await compact(database, NOW, audited) == expected

    assert await kept(database) == list(range(expected.revision + 1, 6))


async def test_a_change_set_stays_whole(database: Database) -> None:
    await write(database, "a")
    await write(database, "b", "c", "d")
    await execute(
        database,
        "ALTER TABLE route_changes DISABLE TRIGGER USER",
        "UPDATE route_changes SET change_set_end = 4 WHERE revision > 1",
        "ALTER TABLE route_changes ENABLE TRIGGER USER",
    )
    await publish(database, 3)

    assert (await compact(database, NOW, audited=4)).revision == 1


async def test_a_commit_of_routes_and_traffic_stays_whole_and_goes_whole(database: Database) -> None:
    keys = [RouteKey("acme", "pay", "prod", name) for name in ("v1", "v2")]
    drafts = [Draft(ChangeKind.CREATED, key, None, "https://pay.internal", True) for key in keys]
    division = Division((Target("v1", 10_000),))
    divided = Draft(ChangeKind.TRAFFIC_SET, keys[0].family_key, None, division=division)
    await write(database, "a")
    await commit_set(PostgresStore(database), [*drafts, divided], Intent("ann"))
    await write(database, "b")

    for published, expected in ((2, 1), (3, 1), (4, 4), (5, 5)):
        await publish(database, published)
        assert (await compact(database, NOW, audited=5)).revision == expected

    (family,) = await PostgresStore(database).load([keys[0].family_key])
    assert family.family.traffic


async def test_a_history_of_nothing_has_nothing_to_compact(database: Database) -> None:
    assert await compact(database, NOW, audited=0) == HistoryPlan(0, 0)
    assert await compact_audit(database, NOW) == []


async def test_an_interrupted_compaction_is_finished_by_the_next(
    database: Database, log: PostgresAuditLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "BATCH", 2)
    for name in "abcdefg":
        await log.append(await write(database, name))
    await publish(database, 7)
    await age(database, 6)
    history, audit = HistoryCompaction(database), AuditCompaction(database)
    rows = history.run(await history.plan(DAY, audited=7))
    (plan,) = await audit.plan(DAY)
    audit_rows = audit.run(plan)
    assert (await anext(rows), await anext(audit_rows)) == (2, 1)
    await rows.aclose()
    await audit_rows.aclose()
    assert await kept(database) == [3, 4, 5, 6, 7]
    assert await PostgresStore(database).compacted() == 6
    # What is half gone is not looked at.
    assert [(chain.first, chain.last) for chain in await verified(log)] == [(7, 7)]

    assert (await compact(database, DAY, audited=7)).rows == 4
    assert sum([rows async for rows in audit.run(plan)]) == 5

    assert await kept(database) == [7]
    assert [(chain.first, chain.last) for chain in await verified(log)] == [(7, 7)]


@pytest.mark.parametrize("table", ["route_changes", "audit_log", "audit_chain"])
async def test_the_database_refuses_to_delete_what_is_not_compacted(
    database: Database, database_url: str, log: PostgresAuditLog, table: str
) -> None:
    for name in "abc":
        await log.append(await write(database, name))
    await publish(database, 3)
    await age(database, 2)
    await compact(database, DAY, audited=3)
    await compact_audit(database, DAY)

    for statement in ("DELETE FROM {}", "TRUNCATE {}", "UPDATE {} SET revision = revision + 100"):
        with psycopg.connect(database_url) as connection, pytest.raises(psycopg.errors.InsufficientPrivilege):
            connection.execute(sql.SQL(statement).format(sql.Identifier(table)))


async def test_a_compacted_chain_goes_on_and_verifies(database: Database, log: PostgresAuditLog) -> None:
    for name in "abcde":
        await log.append(await write(database, name))
    (whole,) = await verified(log)
    await age(database, 3)

    (plan,) = await compact_audit(database, DAY)

    assert (plan.revision, plan.rows) == (3, 3)
    (chain,) = await verified(log)
    assert (chain.first, chain.last, chain.rows, chain.head) == (4, 5, 2, whole.head)
    await log.append(await write(database, "f"))
    (chain,) = await verified(log)
    assert (chain.first, chain.last) == (4, 6)


async def test_what_comes_again_after_it_was_compacted_stays_away(database: Database, log: PostgresAuditLog) -> None:
    changes = [change for name in "abc" for change in await write(database, name)]
    await log.append(changes)
    await compact_audit(database, NOW)

    await log.append(changes)

    (chain,) = await verified(log)
    assert (chain.rows, chain.last, chain.waiting) == (0, 3, 0)
    async with database.connection() as connection:
        assert await (await connection.execute("SELECT count(*) FROM audit_log")).fetchone() == (0,)


@pytest.mark.parametrize(
    "tampering",
    [
        "UPDATE audit_chain SET hash = sha256('other') WHERE revision = 2",
        "DELETE FROM audit_chain WHERE revision = 2",
        "DELETE FROM audit_compactions",
    ],
)
async def test_the_beginning_of_a_compacted_chain_cannot_be_changed(
    database: Database, log: PostgresAuditLog, tampering: LiteralString
) -> None:
    for name in "abcd":
        await log.append(await write(database, name))
    await age(database, 2)
    await compact_audit(database, DAY)
    await execute(
        database,
        "ALTER TABLE audit_chain DISABLE TRIGGER USER",
        "ALTER TABLE audit_compactions DISABLE TRIGGER USER",
        tampering,
    )

    with pytest.raises(BrokenChain, match=r"revision 2 of epoch .*wrong link"):
        await verified(log)


async def test_a_new_audit_log_begins_where_the_history_does(database: Database, log: PostgresAuditLog) -> None:
    for name in "abcd":
        await write(database, name)
    await publish(database, 4)
    await age(database, 2)
    await compact(database, DAY, audited=4)

    await log.append(await PostgresStore(database).list_changes(ChangeQuery()))

    (chain,) = await verified(log)
    assert (chain.first, chain.last) == (3, 4)
