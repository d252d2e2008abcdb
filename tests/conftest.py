"""Fixtures of the whole suite. Engines start, and are imported, with the first test that uses them."""

import os
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from pointsman_server.embedded import Engines
    from tests.support.engines import BorrowedEngines
    from tests.support.kafka import KafkaBroker
    from tests.support.redis_cluster import Cluster
    from tests.support.redis_server import RedisServer

# The property in which ``tests.fuzz.harness`` reports its number of inputs.
FUZZED = "fuzz_inputs"


ENGINE_FOLDERS = ("tests/integration", "tests/e2e", "tests/races")
# Fixtures, and the parameters of contracts, that mean an embedded engine.
ENGINES = {
    "engines",
    "template_database",
    "database_url",
    "redis_url",
    "own_redis",
    "redis_cluster",
    "cluster_url",
    "postgres",
    "replicated",
    "redis",
}

# The files that take longest, the longest first. Most of their time is waiting, for a broker or for a process to start.
LONGEST = (
    "tests/e2e/test_serve.py",
    "tests/integration/test_kafka.py",
    "tests/e2e/test_access_commands.py",
    "tests/e2e/test_migrate.py",
    "tests/e2e/clients/test_grpc_go.py",
    "tests/e2e/clients/test_grpc_js.py",
    "tests/e2e/clients/test_examples.py",
    "tests/e2e/test_dev.py",
    "tests/integration/test_relay.py",
    "tests/e2e/test_pooler.py",
    "tests/e2e/test_canaries.py",
    "tests/e2e/test_pages.py",
    "tests/deploy/test_chart.py",
    "tests/deploy/test_compose.py",
    "tests/deploy/test_pods.py",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Mark tests that need Java or the engines, and let workers begin with the longest files.

    Tests that need a tool built by Go are marked where they are defined.
    """
    for item in items:
        call = getattr(item, "callspec", None)
        needs = {*getattr(item, "fixturenames", ()), *(map(str, call.params.values()) if call else ())}
        if needs & {"kafka_broker", "secured_kafka"}:
            item.add_marker("java")
        if needs & ENGINES or item.nodeid.startswith(ENGINE_FOLDERS):
            item.add_marker("engines")
    if hasattr(config, "workerinput"):
        items.sort(key=lambda item: _place(item.nodeid.partition("::")[0]))


def _place(file: str) -> int:
    """Order files: LONGEST, then the other files that start engines, then the rest."""
    if file in LONGEST:
        return LONGEST.index(file)
    return len(LONGEST) + (not file.startswith(ENGINE_FOLDERS))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Print how many inputs the fuzz targets ran, in all workers together."""
    reports = [report for found in terminalreporter.stats.values() for report in found]
    calls = [report for report in reports if getattr(report, "when", "") == "call"]
    ran = [value for report in calls for name, value in report.user_properties if name == FUZZED]
    if ran:
        terminalreporter.write_line(f"{sum(ran):,} inputs were fuzzed, in {len(ran)} targets")


@pytest.fixture(scope="session")
def engines() -> Iterator["Engines | BorrowedEngines"]:
    """A real PostgreSQL and a real Redis for this process: started here, or borrowed."""
    from tests.support.engines import LENT, borrowed_engines, session_engines

    lent = os.environ.get(LENT)
    with borrowed_engines(Path(lent)) if lent else session_engines() as running:
        yield running


@pytest.fixture(scope="session")
def template_database(engines: "Engines | BorrowedEngines") -> str:
    """The URL of a database with only our schema. Copy it; a connection to it would block copying."""
    from pointsman_server.adapters.postgres.migrations import migrate
    from tests.support.engines import BorrowedEngines, create_database

    if isinstance(engines, BorrowedEngines):
        return engines.template
    url = create_database(engines.urls["DATABASE_URL"])
    migrate(url)
    return url


@pytest.fixture
def database_url(template_database: str) -> Iterator[str]:
    """The URL of an empty database with our schema, for one test."""
    from tests.support.engines import fresh_database

    with fresh_database(template_database) as url:
        yield url


@pytest.fixture
def redis_url(engines: "Engines | BorrowedEngines") -> str:
    """The URL of an empty Redis database, for one test."""
    from tests.support.engines import fresh_redis

    return fresh_redis(engines.urls["REDIS_URL"])


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator["RedisServer"]:
    """A Redis process of this test alone."""
    from tests.support.redis_server import running_redis

    with running_redis(tmp_path) as server:
        yield server


@pytest.fixture(scope="session")
def redis_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator["Cluster"]:
    """A Redis Cluster of three nodes, shared by the session. A test that breaks it must mend it."""
    from tests.support.redis_cluster import Cluster, running

    cluster = Cluster(tmp_path_factory.mktemp("cluster"))
    with running(cluster):
        yield cluster


@pytest.fixture
def cluster_url(redis_cluster: "Cluster") -> str:
    """The URL of an empty Redis Cluster, for one test."""
    redis_cluster.flush()
    return redis_cluster.url


@pytest.fixture(scope="session")
def kafka_broker() -> Iterator["KafkaBroker"]:
    """A real Apache Kafka, shared by the session. A test that kills it must start it again."""
    from tests.support import kafka
    from tests.support.tools import require

    problem = kafka.available()
    require("Apache Kafka", problem is None, problem or "")
    with kafka.running_broker() as broker:
        yield broker
