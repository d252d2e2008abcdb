"""Every alert fires in a real Prometheus when its cause is really made, and is quiet before.

Three servers: A does everything, secured; B answers calls and xDS, and follows PostgreSQL alone; W is like B, but it
answers xDS alone, with two workers.
"""

import os
import resource
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import grpc
import psutil
import psycopg
import pytest
import yaml
from confluent_kafka import Producer

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.watch_pb2 import WatchRequest
from pointsman_server.adapters.postgres.migrations import migrate
from pointsman_server.adapters.postgres.relay_log import LOCK
from tests.support.certificates import Authority, TlsFiles, connect
from tests.support.kafka import KafkaBroker
from tests.support.pause import pause, resume
from tests.support.postgres import Cluster
from tests.support.processes import ServerProcess, free_port, server_process
from tests.support.prometheus import Prometheus, running_prometheus
from tests.support.promql import with_window
from tests.support.redis_server import RedisServer
from tests.support.rules import RULE_FILES, alerts
from tests.support.traffic import TENANT, URL, Traffic, bearer, key, repeatedly
from tests.support.waiting import eventually
from tests.support.xds_streams import stream
from tests.support.xds_world import LDS

WINDOW = "6s"
PATIENCE_SECONDS = 60.0
# Thresholds in seconds that a test cannot wait for, and what they are here.
SHORTER = {"pointsman_xds_table_age_seconds > 60": "pointsman_xds_table_age_seconds > 5"}
# Of 10 that B accepts.
XDS_CLIENTS = 9
# The heartbeat that a server lacks is two seconds old, and the next one does not come within the next two.
BEATEN_A_WHILE_AGO = (
    "SELECT 1 FROM routes WHERE tenant = 'pointsman' AND update_time > '{}' AND clock_timestamp() - update_time "
    "BETWEEN interval '2 seconds' AND interval '3 seconds'"
)
# Of a channel of its own: else a client takes megabytes that nobody reads yet.
READS_LITTLE_AHEAD = (("grpc.use_local_subchannel_pool", 1), ("grpc.http2.bdp_probe", 0))
# Alerts on how long something takes, which a busy machine may fire at any time, and one whose window is too short here.
AT_ANY_TIME = {
    "PointsmanLatencyBudgetBurnsFast",
    "PointsmanLatencyBudgetBurnsSlowly",
    "PointsmanEventLoopLate",
    "PointsmanStalenessBoundExceeded",
    "PointsmanAuditChainStands",
    "PointsmanXdsTableStale",
}


@dataclass
class Scene:
    """The engines, the servers and Prometheus. ``told`` has every alert that was seen firing."""

    prometheus: Prometheus
    postgres: Cluster
    redis: RedisServer
    kafka: KafkaBroker
    servers: dict[str, ServerProcess]
    addresses: dict[str, str]
    directory: Path
    topic: str
    channel: grpc.Channel
    traffic: Traffic
    told: dict[str, dict[str, Any]] = field(default_factory=dict)
    begun: float = 0.0
    seen: set[str] = field(default_factory=set)

    def fired(self) -> set[str]:
        """Name the alerts that have fired since everything was in order, or since the last cause was made."""
        self.told |= self.prometheus.firing()
        return self.prometheus.fired(self.begun)

    def expect(self, *names: str) -> None:
        """Wait until these alerts have fired."""
        assert eventually(lambda: set(names) <= self.fired(), PATIENCE_SECONDS), set(names) - self.fired()

    @contextmanager
    def firing(self, *names: str) -> Iterator[None]:
        """Make causes in the block, which these alerts are told of, and only then. A block may have others in it."""
        wanted = {f"Pointsman{name}" for name in names}
        quiet = wanted - AT_ANY_TIME
        assert eventually(lambda: not quiet & set(self.prometheus.firing())), quiet & set(self.prometheus.firing())
        begun = self.begun = time.time() + 1
        yield
        self.begun = begun
        self.expect(*wanted)
        self.seen |= self.fired()


def for_tests() -> list[dict[str, Any]]:
    """Read the rules, with short windows, and without the time that an alert has to last."""
    files: list[dict[str, Any]] = [yaml.safe_load(path.read_text()) for path in RULE_FILES]
    for file in files:
        for group in file["groups"]:
            for rule in group["rules"]:
                for threshold, shorter in SHORTER.items():
                    rule["expr"] = rule["expr"].replace(threshold, shorter)
                rule["expr"] = with_window(rule["expr"], WINDOW)
                rule.pop("for", None)
    return files


@pytest.fixture
def scene(kafka_broker: KafkaBroker, own_redis: RedisServer, tmp_path: Path) -> Iterator[Scene]:
    postgres = Cluster(tmp_path / "postgres")
    with ExitStack() as stack:
        stack.callback(postgres.close)
        postgres.begin()
        prepare(postgres)
        authority, files = Authority(), TlsFiles(tmp_path)
        files.write(authority.client(dns=("localhost",), days=1))
        (tmp_path / "policy.toml").write_text(POLICY)
        topic = f"route-events-{os.urandom(4).hex()}"
        of_a = {
            "DATABASE_URL": postgres.url,
            "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
            "POINTSMAN_KAFKA_TOPIC": topic,
            "POINTSMAN_KAFKA_PARTITIONS": "1",
            "POINTSMAN_AUDIT_DATABASE_URL": url_of(postgres, "audit"),
            "POINTSMAN_TLS_CERT_FILE": str(files.cert),
            "POINTSMAN_TLS_KEY_FILE": str(files.key),
            "POINTSMAN_API_KEYS": "true",
            "POINTSMAN_POLICY_FILE": str(tmp_path / "policy.toml"),
            "POINTSMAN_ACCESS_REFRESH_SECONDS": "0.5",
            "POINTSMAN_DATABASE_POOL_MAX": "3",
            "POINTSMAN_STORE_LOAD_CONCURRENCY": "1",
        }
        of_b = {
            "DATABASE_URL": postgres.url.replace("pointsman@", "other@"),
            "POINTSMAN_ROLES": "api,xds",
            "POINTSMAN_MAX_CONNECTIONS": "10",
            "POINTSMAN_DATABASE_POOL_MAX": "3",
            "POINTSMAN_STORE_LOAD_CONCURRENCY": "1",
            "POINTSMAN_MAX_MESSAGE_BYTES": str(8 << 20),
            "POINTSMAN_UNREAD_SECONDS": "600",
            # It shows what it has for so long after it has lost sight of the changes.
            "POINTSMAN_CACHE_LOCAL_TTL_SECONDS": "60",
        }
        common = {
            "REDIS_URL": own_redis.url,
            "POINTSMAN_REDIS_TIMEOUT_SECONDS": "2",
            "POINTSMAN_TRANSPORT": "grpcio",
            "POINTSMAN_HEARTBEAT_SECONDS": "5",
            "POINTSMAN_DATABASE_TIMEOUT_SECONDS": "2",
            "POINTSMAN_DRAIN_SECONDS": "0",
        }
        servers, addresses, urls = {}, {}, {}
        of_w = of_b | {"POINTSMAN_ROLES": "xds", "POINTSMAN_WORKERS": "2"}
        for name, chosen in {"A": of_a, "B": of_b, "W": of_w}.items():
            addresses[name], http = f"127.0.0.1:{free_port()}", f"127.0.0.1:{free_port()}"
            xds = addresses[f"xds of {name}"] = f"127.0.0.1:{free_port()}"
            ports = {"POINTSMAN_LISTEN": addresses[name], "POINTSMAN_HTTP_LISTEN": http, "POINTSMAN_XDS_LISTEN": xds}
            servers[name] = stack.enter_context(server_process("serve", **(common | chosen | ports)))
            urls[name] = f"http://{http}"
        prometheus = stack.enter_context(running_prometheus(tmp_path, for_tests()))
        for name, times in (("A", 1), ("B", 1), ("W", 2)):
            servers[name].wait_for_log("serving", times)
        prometheus.scrape(*urls.values())
        channel = stack.enter_context(connect(addresses["A"], authority))
        plain = stack.enter_context(grpc.insecure_channel(addresses["B"]))
        traffic = stack.enter_context(Traffic(plain).running())
        yield Scene(
            prometheus, postgres, own_redis, kafka_broker, servers, addresses, tmp_path, topic, channel, traffic
        )


POLICY = """
[[grant]]
subjects = ["*"]
roles = ["admin"]
tenants = ["*"]
"""


def url_of(postgres: Cluster, database: str) -> str:
    return urlsplit(postgres.url)._replace(path=f"/{database}").geturl()


def prepare(postgres: Cluster) -> None:
    """Make the schema, a database for the audit log, a backup, and a role of B's own."""
    migrate(postgres.url)
    postgres.run_sql("CREATE ROLE other LOGIN")
    postgres.run_sql("GRANT ALL ON ALL TABLES IN SCHEMA public TO other")
    with maintenance(postgres) as connection:
        connection.execute("CREATE DATABASE audit TEMPLATE pointsman OWNER pointsman")
        connection.execute("CREATE DATABASE backup TEMPLATE pointsman OWNER pointsman")


@contextmanager
def maintenance(postgres: Cluster, database: str = "postgres") -> Iterator[psycopg.Connection]:
    """Connect as the superuser, who writes also where the server is read-only."""
    options = "-c default_transaction_read_only=off"
    with psycopg.connect(url_of(postgres, database), user="postgres", autocommit=True, options=options) as connection:
        yield connection


def test_every_alert_fires_by_its_cause(scene: Scene) -> None:
    the_quiet_server(scene)
    # In one block: the server looks every 15 seconds for names that clients cannot be led to.
    with (
        scene.firing("XdsRefused", "XdsNotCarried", "XdsStreamsNearLimit"),
        clients_of_xds(scene.addresses["xds of B"]),
    ):
        what_one_server_suffers(scene)
        what_others_write_to_the_engines(scene)
    kafka_and_redis_go(scene)
    postgres_is_slow(scene)
    postgres_goes(scene)
    a_server_goes(scene)

    assert scene.seen == set(scene.told) == set(alerts())
    assert scene.prometheus.broken_rules() == []
    for name, alert in scene.told.items():
        for text in alert["annotations"].values():
            assert not {"<no value>", "<error"} & set(text.split()), (name, text)
            assert "{{" not in text


def the_quiet_server(scene: Scene) -> None:
    """With a certificate that ends in a day, nothing fires but what says so."""
    of_certificates = {"PointsmanCertificateEndsSoon", "PointsmanCertificateEndsNow"}
    in_order = "min(pointsman_dependency_up) == 1 and max(pointsman_relay_leader) == 1 and count(pointsman_ready) == 3"
    assert eventually(lambda: scene.prometheus.query(in_order))
    assert eventually(lambda: set(scene.prometheus.firing()) - AT_ANY_TIME == of_certificates), (
        scene.prometheus.firing()
    )
    # The range of a query ends now: the second before is that of the last evaluation.
    scene.begun = time.time() + 1
    scene.traffic.wait_for_rounds(10)
    assert eventually(lambda: time.time() > scene.begun + 3)
    assert scene.fired() - AT_ANY_TIME == of_certificates
    scene.seen = scene.fired()


@contextmanager
def clients_of_xds(address: str) -> Iterator[None]:
    """Nearly as many clients as a server accepts ask for a URL with a path, which gRPC cannot take; one refuses it."""
    with grpc.insecure_channel(address) as channel, ExitStack() as stack:
        clients = [
            stack.enter_context(stream(channel, node=f"client-{each}", seconds=300)) for each in range(XDS_CLIENTS)
        ]
        for client in clients:
            client.subscribe(LDS, f"stays~prod~payments~{TENANT}")
        for client in clients[1:]:
            client.acknowledge(client.read())
        clients[0].refuse(clients[0].read(), "this client cannot use it")
        yield


def what_one_server_suffers(scene: Scene) -> None:
    """Bad credentials, a policy that cannot be read, too few descriptors, a pause, a worker that is killed."""
    a = scene.servers["A"].process
    limits = resource.prlimit(a.pid, resource.RLIMIT_NOFILE)

    def leave_few_descriptors() -> None:
        resource.prlimit(a.pid, resource.RLIMIT_NOFILE, (int(psutil.Process(a.pid).num_fds() * 1.1), limits[1]))

    intruder = Traffic(scene.channel, bearer("pmk_not_a_key"))
    names = (
        "BadCredentials",
        "CallsRefused",
        "AccessSourceFails",
        "EventLoopLate",
        "DescriptorsRunOut",
        "WorkerRestarts",
    )
    with scene.firing(*names), ExitStack() as stack:
        stack.callback(resource.prlimit, a.pid, resource.RLIMIT_NOFILE, limits)
        stack.callback((scene.directory / "policy.toml").write_text, POLICY)
        attack = repeatedly(lambda: intruder.call("Resolve", pb.ResolveRequest(key=key("stays"))), pause=0.005)
        stack.enter_context(attack)
        (scene.directory / "policy.toml").write_text("this is no policy")
        psutil.Process(scene.servers["W"].process.pid).children()[1].kill()
        stack.enter_context(repeatedly(leave_few_descriptors, pause=0.5))
        pause(a)
        time.sleep(0.6)
        resume(a)
        scene.expect(*(f"Pointsman{name}" for name in names))


def large_import(number: int) -> pb.ImportRequest:
    """Change 200 routes of 15 kB: eight of these are more than a stream keeps for a client that does not read."""
    labels = pb.Labels(labels={f"label-{each}": "x" * 256 for each in range(60)})
    return pb.ImportRequest(
        routes=[pb.ImportedRoute(key=key(f"large-{each}"), url=f"{URL}/{number}", labels=labels) for each in range(200)]
    )


def fall_asleep(channel: grpc.Channel) -> Any:
    """Watch, and read no more once the snapshot has arrived. Returns the stream, which ends when it is let go of."""
    stream: Any = RouteServiceStub(channel).Watch(WatchRequest(tenant=TENANT), timeout=600)
    assert any(event.WhichOneof("event") == "end_of_snapshot" for event in stream)
    return stream


def what_others_write_to_the_engines(scene: Scene) -> None:
    """A message is no change, the audit log is closed, B may not read the history, and a watcher sleeps."""
    names = (
        "DeadLetters",
        "AuditDatabaseDown",
        "ConsumerFails",
        "ConsumerLag",
        "AuditChainStands",
        "WatchersTooSlow",
    )
    with scene.firing(*names), ExitStack() as stack:
        producer = Producer({"bootstrap.servers": scene.kafka.bootstrap_servers})
        producer.produce(scene.topic, b"\xff")
        assert producer.flush(30) == 0
        scene.expect("PointsmanDeadLetters")
        with maintenance(scene.postgres) as connection:
            connection.execute("ALTER DATABASE audit ALLOW_CONNECTIONS false")
            connection.execute("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'audit'")
        asleep = fall_asleep(stack.enter_context(grpc.insecure_channel(scene.addresses["B"], READS_LITTLE_AHEAD)))
        for number in range(8):
            scene.traffic.call("Import", large_import(number))
        scene.expect("PointsmanConsumerLag", "PointsmanWatchersTooSlow")
        asleep.cancel()
    # After the imports, which a busy machine applies so late that the feed is behind with them too.
    with scene.firing("FeedBehind", "XdsTableStale"):
        scene.postgres.run_sql("REVOKE SELECT ON route_changes FROM other")
        ((revoked_at,),) = scene.postgres.run_sql("SELECT clock_timestamp()")
    with scene.firing("StalenessBoundExceeded"):
        assert eventually(lambda: scene.postgres.run_sql(BEATEN_A_WHILE_AGO.format(revoked_at)))
        scene.postgres.run_sql("GRANT SELECT ON route_changes TO other")


def kafka_and_redis_go(scene: Scene) -> None:
    """Kafka and Redis end, the clock of PostgreSQL is two minutes ahead, and somebody else has the relay's lock."""
    names = ("KafkaDown", "FeedWithoutKafka", "RelayLag", "ClockSkew", "RedisDown", "CacheBreakerOpen", "NoRelayLeader")
    with ExitStack() as stack, scene.firing(*names):
        scene.kafka.kill()
        stack.callback(scene.kafka.start)
        scene.redis.stop()
        scene.traffic.wait_for_rounds(2)
        with maintenance(scene.postgres, "pointsman") as connection:
            connection.execute("CREATE SCHEMA ahead; GRANT USAGE ON SCHEMA ahead TO pointsman")
            connection.execute(
                "CREATE FUNCTION ahead.clock_timestamp() RETURNS timestamptz LANGUAGE sql VOLATILE "
                "AS $$ SELECT pg_catalog.clock_timestamp() + interval '2 minutes' $$"
            )
            connection.execute("ALTER ROLE pointsman SET search_path = ahead, pg_catalog, public")
        locker = stack.enter_context(maintenance(scene.postgres, "pointsman"))
        waiting = threading.Thread(target=locker.execute, args=(f"SELECT pg_advisory_lock({LOCK})",))
        waiting.start()
        assert eventually(
            lambda: scene.postgres.run_sql("SELECT 1 FROM pg_locks WHERE locktype = 'advisory' AND NOT granted")
        )
        scene.postgres.run_sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'pointsman'")
        waiting.join()
    in_order = "min(pointsman_dependency_up{dependency='kafka'}) == 1 and max(pointsman_feed_connected) == 1"
    assert eventually(lambda: scene.prometheus.query(in_order))


def postgres_is_slow(scene: Scene) -> None:
    """Somebody locks the table of routes, and writes labels into it that are none."""
    names = (
        "PoolExhausted",
        "WritesFail",
        "ErrorBudgetBurnsFast",
        "ErrorBudgetBurnsSlowly",
        "LatencyBudgetBurnsFast",
        "LatencyBudgetBurnsSlowly",
    )
    consistent = pb.ResolveRequest(key=key("stays"), consistency=pb.CONSISTENCY_FULLY_CONSISTENT)
    with maintenance(scene.postgres, "pointsman") as connection, ExitStack() as stack:
        with scene.firing(*names):
            connection.execute("BEGIN")
            connection.execute("LOCK TABLE routes IN ACCESS EXCLUSIVE MODE")
            stack.enter_context(repeatedly(lambda: scene.traffic.call("Resolve", consistent), pause=0.01))
            # Each takes a connection of its own, while reads of keys share one.
            every = pb.ListRequest(tenant=TENANT)
            stack.enter_context(repeatedly(lambda: scene.traffic.call("List", every), threads=20, pause=0.01))
        with scene.firing("InternalErrors"):
            connection.execute("UPDATE routes SET labels = '[1]' WHERE tenant = 'team-a'")
            connection.execute("COMMIT")
        connection.execute("UPDATE routes SET labels = '{}' WHERE tenant = 'team-a'")


def postgres_goes(scene: Scene) -> None:
    """PostgreSQL turns read-only, lets nobody in, nor a worker that starts then, and comes back as it was before."""
    with scene.firing("PostgresReadOnly"):
        scene.postgres.refuse_writes()
    with maintenance(scene.postgres) as connection:
        with scene.firing("PostgresDown", "ServerNotReady", "NoServerReady"):
            connection.execute("ALTER DATABASE pointsman ALLOW_CONNECTIONS false")
            ended = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = 'pointsman'"
            assert eventually(lambda: not connection.execute(ended).fetchall())
            # While W, which answers no calls, is ready.
            scene.expect("PointsmanNoServerReady")
            assert scene.prometheus.query("sum(pointsman_ready) == 1")
        with scene.firing("XdsTableNotLoaded", "NoXdsServerReady"):
            # The worker that takes its place has no table to answer xDS from.
            psutil.Process(scene.servers["W"].process.pid).children()[1].kill()
        with scene.firing("StoreRestored"):
            connection.execute("ALTER DATABASE pointsman RENAME TO lost")
            connection.execute("ALTER DATABASE backup RENAME TO pointsman")


def a_server_goes(scene: Scene) -> None:
    """A server is killed."""
    with scene.firing("ServerDown"):
        scene.servers["B"].process.send_signal(signal.SIGKILL)
