"""Databases of tests are copied and dropped while an autovacuum worker, which only a superuser may end, is in them."""

from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from tests.support.engines import back_up, drop_database
from tests.support.postgres import Cluster
from tests.support.waiting import eventually

SLOW = "autovacuum_vacuum_threshold = 1, autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1"
WORKER = "SELECT 1 FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' AND datname = 'pointsman'"


@pytest.fixture
def vacuumed(tmp_path: Path) -> Iterator[Cluster]:
    """Give a cluster whose database an autovacuum worker is in; by its cost limits it stays for minutes."""
    cluster = Cluster(tmp_path / "own")
    try:
        cluster.begin()
        cluster.run_sql("ALTER SYSTEM SET autovacuum_naptime = 1")
        cluster.run_sql("SELECT pg_reload_conf()")
        with psycopg.connect(cluster.url, autocommit=True) as connection:
            connection.execute(f"CREATE TABLE large (filler text) WITH ({SLOW})")
            connection.execute("INSERT INTO large SELECT repeat('x', 1000) FROM generate_series(1, 20000)")
            connection.execute("DELETE FROM large")
        assert eventually(lambda: cluster.run_sql(WORKER))
        yield cluster
    finally:
        cluster.close()


def test_a_database_is_copied_and_dropped(vacuumed: Cluster) -> None:
    copy = back_up(vacuumed.url)
    drop_database(copy)
    assert eventually(lambda: vacuumed.run_sql(WORKER))
    drop_database(vacuumed.url)
