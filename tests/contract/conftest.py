"""The stores that the contracts are checked on."""

from collections.abc import AsyncIterator

import pytest

from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.replicas.store import ReplicatedStore
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.ports.store import RouteStore
from tests.support.fakes import MemoryStore


@pytest.fixture(params=["memory", "postgres", "replicated"])
async def store(request: pytest.FixtureRequest) -> AsyncIterator[RouteStore]:
    if request.param == "memory":
        yield MemoryStore()
        return
    database = Database(request.getfixturevalue("database_url"), pool_min=1, pool_max=10, timeout=30.0)
    await database.open()
    primary = PostgresStore(database)
    if request.param == "postgres":
        yield primary
    else:
        # A replica that is never behind. tests/integration/test_replicas.py has others.
        replicated = ReplicatedStore(primary, database, [database])
        await replicated.check()
        yield replicated
    await database.close()
