"""PostgreSQL fails over under a running server, which goes on without a restart."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from pointsman import Client, Consistency
from pointsman.errors import DeadlineExceeded, RouteNotFound, Unavailable
from pointsman_server.adapters.postgres.migrations import migrate
from tests.support.pooler import proxy
from tests.support.postgres import Cluster, primary_and_standby
from tests.support.processes import get_json, get_metric, run, serve
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
# Of the failover itself, the health check that notices it takes a second, and connecting anew at most two.
WRITES_AGAIN_SECONDS = 10.0
BY_REPLICA = r'pointsman_store_reads_total\{source="replica"\}'


def turn_read_only(old: Cluster, new: Cluster) -> None:
    """As an operator or a fence does it: every connection stays open."""
    old.refuse_writes()
    new.promote(old)


def return_as_standby(old: Cluster, new: Cluster) -> None:
    """As Patroni does it: the old primary starts again behind the new one, and takes reads."""
    new.promote(old)
    old.stop()
    old.follow(new)
    old.begin()


@pytest.mark.parametrize("fail_over", [turn_read_only, return_as_standby])
def test_writes_and_the_relay_go_on_at_the_new_primary(tmp_path: Path, redis_url, kafka_broker, fail_over):
    with primary_and_standby(tmp_path) as (old, new), proxy(old.port) as address:
        migrate(old.url)
        environ = {
            "DATABASE_URL": old.url.replace(f":{old.port}/", f":{address.port}/"),
            "REDIS_URL": redis_url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
            "POINTSMAN_KAFKA_TOPIC": f"failover-{address.port}",
        }
        with serve(**environ) as (process, server, http), Client(server) as client:
            client.create("team-a/payments/prod/v1", URL)
            process.wait_for_log("the relay leads")

            fail_over(old, new)
            address.server = new.port
            began = time.monotonic()
            create_soon(client, "team-a/payments/prod/v2")
            took = time.monotonic() - began

            assert took < WRITES_AGAIN_SECONDS, process.errors
            assert eventually(lambda: get_json(f"{http}/health/ready")[1]["status"] == "ready"), process.errors
            process.wait_for_log("the relay leads", 2)
            assert eventually(lambda: get_metric(http, "pointsman_relay_lag_revisions") == 0), process.errors
            assert client.resolve("team-a/payments/prod/v1").url == URL
            assert new.run_sql("SELECT count(*) FROM pointsman.public.routes") == [(2,)]


def create_soon(client: Client, key: str) -> None:
    """Write as a caller does that retries by itself."""
    give_up = time.monotonic() + 6 * WRITES_AGAIN_SECONDS
    while True:
        try:
            client.create(key, URL, timeout=WRITES_AGAIN_SECONDS)
        except Unavailable:
            assert time.monotonic() < give_up
        else:
            return


def both(first: Cluster, second: Cluster) -> str:
    """The URL that leads to whichever of the two takes writes."""
    hosts = f"127.0.0.1:{first.port},127.0.0.1:{second.port}"
    return f"postgresql://pointsman@{hosts}/pointsman?target_session_attrs=read-write"


class Load:
    """Writers and readers that go on whatever happens; ``wrong`` lists the answers that were older than they may be.

    ``answered`` has for each key the revision of its last write that was answered, and ``writes`` those of all.
    """

    def __init__(self, server: str) -> None:
        self.server = server
        self.answered: dict[str, int] = {}
        self.writes: set[object] = set()
        self.wrong: list[str] = []
        self.reads = 0
        self.failed = 0
        self._over = threading.Event()

    @contextmanager
    def running(self) -> Iterator[None]:
        keys = [f"team-a/payments/prod/v{number}" for number in range(3)]
        with Client(self.server) as client:
            for key in keys:
                self.answered[key] = client.create(key, URL).revision
        works: list[Callable[[Client, str], None]] = [self._write, self._read_consistently, self._read_newer]
        threads = [threading.Thread(target=self._run, args=(work, key)) for work in works for key in keys]
        for thread in threads:
            thread.start()
        try:
            yield
        finally:
            self._over.set()
            for thread in threads:
                thread.join()

    def _run(self, work: Callable[[Client, str], None], key: str) -> None:
        with Client(self.server) as client:
            while not self._over.is_set():
                try:
                    work(client, key)
                except (Unavailable, DeadlineExceeded):
                    self.failed += 1

    def _write(self, client: Client, key: str) -> None:
        route = client.update(key, url=f"{URL}/{time.monotonic_ns()}", timeout=2)
        if route.revision <= self.answered[key]:
            self.wrong.append(f"{key}: revision {route.revision} after {self.answered[key]}")
        self.answered[key] = route.revision
        self.writes.add(route.revision)
        time.sleep(0.01)

    def _read_consistently(self, client: Client, key: str) -> None:
        self._read(client, key, min_revision=0, consistency=Consistency.FULLY_CONSISTENT)

    def _read_newer(self, client: Client, key: str) -> None:
        self._read(client, key, min_revision=self.answered[key], consistency=Consistency.MINIMIZE_LATENCY)

    def _read(self, client: Client, key: str, min_revision: int, consistency: Consistency) -> None:
        floor = self.answered[key]
        resolution = client.resolve(key, min_revision=min_revision, consistency=consistency, timeout=2)
        self.reads += 1
        if resolution.revision < floor:
            self.wrong.append(f"{key}: {resolution.revision} was read after {floor} was answered")


def test_under_load_the_loss_of_the_primary_makes_no_wrong_answer_and_writes_resume(
    tmp_path: Path, redis_url, kafka_broker
):
    """Two hosts in the URL; the standby has what is answered, and answers reads as a replica until it takes over."""
    with primary_and_standby(tmp_path) as (old, new):
        migrate(old.url)
        old.wait_for_standby()
        environ = {
            "DATABASE_URL": both(old, new),
            "POINTSMAN_DATABASE_REPLICA_URLS": new.url,
            "REDIS_URL": redis_url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
            "POINTSMAN_KAFKA_TOPIC": f"loss-{old.port}",
        }
        with serve(**environ) as (process, server, http):
            load = Load(server)
            process.wait_for_log("the relay leads")
            with load.running():
                assert eventually(lambda: (get_metric(http, BY_REPLICA) or 0) > 50), process.errors
                old.crash()
                assert eventually(lambda: load.failed > 0)
                began = dict(load.answered)
                lost_at = time.monotonic()
                new.promote()
                resumed = eventually(lambda: all(load.answered[key] > began[key] for key in began), 60)
                took = time.monotonic() - lost_at
                reads = load.reads
                assert eventually(lambda: load.reads > reads + 50)
            assert resumed, process.errors
            assert took < WRITES_AGAIN_SECONDS, process.errors
            assert load.wrong == []
            process.wait_for_log("the relay leads", 2)
            assert eventually(lambda: get_json(f"{http}/health/ready")[1]["status"] == "ready"), process.errors
            assert eventually(lambda: get_metric(http, "pointsman_relay_lag_revisions") == 0), process.errors
            assert process.process.poll() is None
            kept = {revision for (revision,) in new.run_sql("SELECT revision FROM route_changes")}
            assert load.writes <= kept, "each write that was answered is there"


def test_a_standby_that_lacks_the_last_writes_is_a_restored_database(tmp_path: Path, redis_url, kafka_broker):
    """Without synchronous replication, a failover may lose what was answered: that is noticed, and nothing mixed up."""
    kept, lost, after = (f"team-a/payments/prod/{version}" for version in ("kept", "lost", "after"))
    with primary_and_standby(tmp_path) as (old, new):
        migrate(old.url)
        environ = {
            "DATABASE_URL": both(old, new),
            "REDIS_URL": redis_url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
            "POINTSMAN_KAFKA_TOPIC": f"lost-{old.port}",
        }
        with serve(**environ) as (process, server, http), Client(server) as client:
            before = client.create(kept, URL)
            ((end,),) = old.run_sql("SELECT pg_current_wal_insert_lsn()")
            assert eventually(lambda: new.run_sql(f"SELECT 1 WHERE pg_last_wal_replay_lsn() >= '{end}'"))
            new.fall_behind()
            gone = client.create(lost, URL)
            old.crash()
            new.promote()

            def health() -> dict[str, object]:
                return get_json(f"{http}/health/ready")[1]

            assert eventually(lambda: health()["status"] == "not ready", 30), process.errors
            assert eventually(lambda: "was restored to an older state" in str(health()), 30), process.errors
            assert "run `pointsman-server restore`" in str(health())
            for call in (
                lambda: client.create(after, URL),
                lambda: client.resolve(kept, consistency=Consistency.FULLY_CONSISTENT),
            ):
                with pytest.raises(Unavailable):
                    call()

            restored = run("pointsman-server", "restore", "--yes", **environ)
            assert restored.returncode == 0, restored.stderr
            assert eventually(lambda: health()["status"] == "ready", 30), process.errors
            made = client.create(after, URL)
            assert made.revision == gone.revision, "the revision counts in another epoch"
            assert client.resolve(kept, consistency=Consistency.FULLY_CONSISTENT).revision == before.revision
            with pytest.raises(RouteNotFound):
                client.resolve(lost)
            assert process.process.poll() is None
