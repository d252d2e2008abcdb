"""A rolling upgrade: servers of the version before and of this one side by side, under load, on the new schema."""

import json
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import psycopg
import pytest

from pointsman import Client, PointsmanError
from tests.support.engines import create_database, drop_database
from tests.support.processes import clean_environ, free_port, run, serve
from tests.support.waiting import eventually

ROOT = Path(__file__).resolve().parents[2]
# The last commit before the newest migration: a release takes the tag of the one before.
BEFORE = "bc9e48d"
KEYS = [f"team-a/payments/prod/v{number}" for number in range(8)]
URL = "https://payments.internal:8443"


@pytest.fixture(scope="module")
def before(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The PYTHONPATH of the version before."""
    there = subprocess.run(["git", "-C", ROOT, "cat-file", "-e", f"{BEFORE}^{{commit}}"], check=False)
    if there.returncode != 0:
        pytest.skip(f"a clone without history has no commit {BEFORE}: git fetch --unshallow")
    directory = tmp_path_factory.mktemp("before")
    archive = subprocess.run(
        ["git", "-C", ROOT, "archive", BEFORE, "server", "clients"], check=True, capture_output=True
    )
    subprocess.run(["tar", "-x", "-C", directory], input=archive.stdout, check=True)
    return f"{directory / 'server'}:{directory / 'clients' / 'python'}"


@pytest.fixture
def empty_database(database_url: str) -> Iterator[str]:
    url = create_database(database_url)
    yield url
    drop_database(url)


class Load:
    """Callers that resolve and write until told to stop, and what failed for them."""

    def __init__(self, target: str) -> None:
        self.failed: list[str] = []
        self.resolved = self.written = 0
        self._stop = threading.Event()
        self._client = Client(target, timeout=10)
        self._threads = [threading.Thread(target=self._resolve), threading.Thread(target=self._write)]

    def __enter__(self) -> Self:
        for key in KEYS:
            self._client.create(key, URL)
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._client.close()

    def goes_on(self) -> bool:
        """Wait for 100 more answers and 10 more writes."""
        resolved, written = self.resolved + 100, self.written + 10
        return eventually(lambda: bool(self.failed) or (self.resolved > resolved and self.written > written), 60)

    def _resolve(self) -> None:
        newest = dict.fromkeys(KEYS, 0)
        while not self._stop.is_set():
            key = KEYS[self.resolved % len(KEYS)]
            try:
                route = self._client.resolve(key)
            except PointsmanError as error:
                self.failed.append(f"resolve: {error}")
                return
            if route.revision < newest[key]:
                self.failed.append(f"{key} went back from {newest[key]} to {route.revision}")
            newest[key] = route.revision
            self.resolved += 1

    def _write(self) -> None:
        while not self._stop.is_set():
            key = KEYS[self.written % len(KEYS)]
            try:
                self._client.update(key, url=f"{URL}/{self.written}")
            except PointsmanError as error:
                self.failed.append(f"update: {error}")
                return
            self.written += 1


def migrate(path: str, database_url: str) -> None:
    environ = {**clean_environ(), "DATABASE_URL": database_url, **({"PYTHONPATH": path} if path else {})}
    subprocess.run([sys.executable, "-m", "pointsman_server", "migrate"], env=environ, check=True, capture_output=True)


def version(database_url: str) -> str:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT version_num FROM alembic_version").fetchone()
    return str(row[0]) if row else ""


def test_no_call_fails_and_nothing_is_lost(before, empty_database, redis_url, kafka_broker):
    ports = [free_port() for _ in range(4)]
    environ = {
        "DATABASE_URL": empty_database,
        "REDIS_URL": redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "POINTSMAN_KAFKA_TOPIC": f"upgrade-{uuid.uuid4().hex}",
        # On grpcio the version before cancels a call that arrives while it ends (test_drain).
        "POINTSMAN_TRANSPORT": "envoy",
    }

    def server(stack: ExitStack, port: int, path: str = ""):
        place = {"POINTSMAN_LISTEN": f"127.0.0.1:{port}", **({"PYTHONPATH": path} if path else {})}
        return stack.enter_context(serve(**environ, **place))[0]

    migrate(before, empty_database)
    was = version(empty_database)
    target = "ipv4:" + ",".join(f"127.0.0.1:{port}" for port in ports)
    with ExitStack() as stack:
        old = [server(stack, port, before) for port in ports[:2]]
        with Load(target) as load, Client(target) as client, client.cached(tenants=["team-a"]) as cache:
            assert cache.wait_ready(30)
            assert load.goes_on()
            migrate("", empty_database)
            assert version(empty_database) > was
            # The old servers on the new schema, alone; then one of each; then the new ones.
            assert load.goes_on(), load.failed
            server(stack, ports[2])
            assert load.goes_on(), load.failed
            assert old[0].stop() == 0
            assert load.goes_on(), load.failed
            server(stack, ports[3])
            assert old[1].stop() == 0
            assert load.goes_on(), load.failed
        assert load.failed == []
        with Client(target) as client, client.cached(tenants=["team-a"]) as fresh:
            assert fresh.wait_ready(30)
            assert {key: fresh.resolve(key).url for key in KEYS} == {key: client.resolve(key).url for key in KEYS}
        said = old_client_resolves(before, f"127.0.0.1:{ports[3]}")
        assert said.startswith(URL), said
        # Once every server is new.
        with Client(target) as client:
            client.set_traffic("team-a/payments/prod", {"v0": 9_000, "v1": 1_000})
            assert client.select("team-a/payments/prod", "caller").route.url.startswith(URL)
        changes = len(KEYS) + load.written + 1
        assert eventually(lambda: verified(empty_database) == (changes, 0), 60), verified(empty_database)


def old_client_resolves(path: str, address: str) -> str:
    program = "import sys; from pointsman import Client; print(Client(sys.argv[1]).resolve(sys.argv[2]).url)"
    command = [sys.executable, "-c", program, address, KEYS[0]]
    return subprocess.run(
        command, env={**clean_environ(), "PYTHONPATH": path}, check=True, capture_output=True, text=True
    ).stdout


def verified(database_url: str) -> tuple[int, int]:
    """Return how many rows the audit log has, and how far its chain is behind."""
    said = json.loads(run("pointsman-server", "audit", "verify", "--json", DATABASE_URL=database_url).stdout)
    return sum(epoch["rows"] for epoch in said["epochs"]), said["behind"]
