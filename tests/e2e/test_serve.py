"""``pointsman-server serve``: the whole of it, with PostgreSQL, Redis and a real Kafka."""

import concurrent.futures
import json
import os
import signal
import subprocess

import psutil
import psycopg
import pytest
from confluent_kafka import Consumer

from pointsman import Client, NotFound, RouteNotFound
from pointsman.v1 import route_pb2
from tests.support.processes import free_port, get_json, get_metric, run, serve, server_process
from tests.support.tools import require, tool
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
TRANSPORTS = ["grpcio", "envoy"]


@pytest.fixture
def environ(database_url, redis_url, kafka_broker, request) -> dict[str, str]:
    """The three engines, and a topic of this test alone."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "POINTSMAN_KAFKA_TOPIC": f"route-events-{os.urandom(4).hex()}",
        "POINTSMAN_KAFKA_PARTITIONS": "3",
        "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
        "POINTSMAN_DATABASE_TIMEOUT_SECONDS": "30",
    }


def events(environ: dict[str, str], count: int) -> list[route_pb2.RouteChange]:
    """Read the topic from its beginning until ``count`` events are there."""
    consumer = Consumer(
        {
            "bootstrap.servers": environ["KAFKA_BOOTSTRAP_SERVERS"],
            "group.id": f"test-{os.urandom(4).hex()}",
            "auto.offset.reset": "earliest",
        }
    )
    consumer.subscribe([environ["POINTSMAN_KAFKA_TOPIC"]])
    found: list[route_pb2.RouteChange] = []

    def receive() -> bool:
        found.extend(
            route_pb2.RouteChange.FromString(message.value())
            for message in consumer.consume(100, timeout=1)
            if message.error() is None
        )
        return len(found) >= count

    try:
        assert eventually(receive, 60), found
    finally:
        consumer.close()
    return found


def audited(environ: dict[str, str]) -> list[int]:
    with psycopg.connect(environ["DATABASE_URL"]) as connection:
        return [row[0] for row in connection.execute("SELECT revision FROM audit_log ORDER BY revision")]


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_a_change_reaches_callers_kafka_and_the_audit_log(environ, transport):
    with serve("--transport", transport, **environ) as (process, address, http), Client(address) as client:
        created = client.create("team-a/payments/prod/v1", URL, reason="launch")
        client.update("team-a/payments/prod/v1", url=f"{URL}/new")
        assert client.resolve("team-a/payments/prod/v1").route.url == f"{URL}/new"

        first, second = events(environ, 2)
        assert (first.revision, first.reason, first.after.url) == (created.revision, "launch", URL)
        assert (second.before.url, second.after.url) == (URL, f"{URL}/new")
        assert eventually(lambda: audited(environ) == [first.revision, second.revision])
        assert eventually(lambda: get_metric(http, "pointsman_relay_lag_revisions") == 0)
        assert get_metric(http, r'pointsman_kafka_events_published_total{action="CREATED"}') == 1
        assert process.stop() == 0


def test_two_servers_see_each_others_writes(environ):
    with (
        serve(**environ) as (_, one, _http),
        serve(**environ) as (_, two, _http2),
        Client(one) as writer,
        Client(two) as reader,
    ):
        with pytest.raises(RouteNotFound):
            reader.resolve("team-a/payments/prod/v1")
        revision = writer.create("team-a/payments/prod/v1", URL).revision

        # At once with the revision as a token; without one, within the local cache's time to live.
        assert reader.resolve("team-a/payments/prod/v1", min_revision=revision).route.url == URL
        writer.deactivate("team-a/payments/prod/v1")
        assert eventually(lambda: not resolves(reader, "team-a/payments/prod/v1"))
        deleted = writer.delete("team-a/payments/prod/v1")
        with pytest.raises(RouteNotFound):
            reader.resolve("team-a/payments/prod/v1", min_revision=deleted)


def resolves(client: Client, key: str) -> bool:
    try:
        client.resolve(key)
    except NotFound:
        return False
    return True


def test_every_acknowledged_write_reaches_kafka_after_a_kill(environ):
    written = []
    with serve(**environ) as (process, address, _), Client(address) as client:
        for number in range(50):
            written.append(client.create(f"team-a/payments/prod/v{number}", URL).revision)
            if number == 40:
                process.process.send_signal(signal.SIGKILL)
                break
    assert len(written) == 41

    with serve(**environ):
        found = events(environ, 41)
        assert eventually(lambda: set(written) <= set(audited(environ)))

    assert set(written) <= {change.revision for change in found}


def test_a_stop_fails_no_accepted_call(environ):
    with serve(**environ) as (process, address, _), Client(address, timeout=20) as client:
        client.create("team-a/payments/prod/v1", URL)
        with psycopg.connect(environ["DATABASE_URL"]) as blocker, concurrent.futures.ThreadPoolExecutor() as pool:
            # An update in flight, held up in the database until the stop has begun.
            blocker.execute("SELECT FROM clock FOR UPDATE")
            pending = pool.submit(client.update, "team-a/payments/prod/v1", url=f"{URL}/late")
            assert eventually(lambda: blocked(environ["DATABASE_URL"]))
            process.process.send_signal(signal.SIGTERM)
            process.wait_for_log("draining")
            blocker.rollback()

            assert pending.result(20).url == f"{URL}/late"
        assert process.process.wait(30) == 0


def test_a_lame_duck_says_not_serving_and_still_answers(environ):
    lame = environ | {"POINTSMAN_LAME_DUCK_SECONDS": "600"}
    with serve(**lame) as (process, address, http), Client(address) as client:
        client.create("team-a/payments/prod/v1", URL)
        process.process.send_signal(signal.SIGTERM)
        assert eventually(lambda: get_json(f"{http}/health/ready")[0] == 503)

        assert client.resolve("team-a/payments/prod/v1").route.url == URL

        process.process.kill()


def blocked(url: str) -> bool:
    with psycopg.connect(url, autocommit=True) as connection:
        row = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
    return bool(row and row[0])


@pytest.mark.go
def test_health_says_not_serving_while_draining(environ):
    probe = require("grpc-health-probe", tool("grpc-health-probe"), "go install builds it: make tools")
    with serve(**environ) as (process, address, http), Client(address, timeout=20) as client:
        client.create("team-a/payments/prod/v1", URL)
        serving = subprocess.run([probe, f"-addr={address}", "-service=readiness"], capture_output=True, check=False)
        assert serving.returncode == 0, serving.stderr
        with psycopg.connect(environ["DATABASE_URL"]) as blocker, concurrent.futures.ThreadPoolExecutor() as pool:
            blocker.execute("SELECT FROM clock FOR UPDATE")
            pending = pool.submit(client.update, "team-a/payments/prod/v1", url=f"{URL}/late")
            assert eventually(lambda: blocked(environ["DATABASE_URL"]))
            process.process.send_signal(signal.SIGTERM)
            process.wait_for_log("draining")

            assert eventually(lambda: get_json(f"{http}/health/ready")[0] == 503)

            blocker.rollback()
            pending.result(20)


def test_engines_that_are_down_at_start_are_named_and_waited_for(environ, kafka_broker):
    down = environ | {
        "DATABASE_URL": "postgresql://u@127.0.0.1:1/d",
        "REDIS_URL": "redis://127.0.0.1:1/0",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "POINTSMAN_DATABASE_TIMEOUT_SECONDS": "1",
    }
    with serve(**down) as (process, _, http):
        code, health = get_json(f"{http}/health/ready")

        assert code == 503
        details = {name: state["detail"] for name, state in health["dependencies"].items()}
        refused = 'connection to server at "127.0.0.1", port 1 failed: Connection refused'
        assert details["postgres"] == f"PostgreSQL at 127.0.0.1:1 cannot be reached: {refused}"
        assert details["redis"] == "Redis at 127.0.0.1:1 does not answer"
        assert details["kafka"] == "Kafka at 127.0.0.1:1 does not answer: Connection refused"
        told = {line["dependency"]: line["detail"] for line in process.log("a dependency is down, trying again")}
        assert told == details
        assert "Traceback" not in process.errors
        assert get_json(f"{http}/health/live")[0] == 200
        assert process.stop() == 0


def test_a_database_without_a_schema_says_what_to_do(environ, engines):
    from tests.support.engines import create_database, drop_database

    empty = create_database(engines.urls["DATABASE_URL"])
    try:
        with serve(**(environ | {"DATABASE_URL": empty})) as (_, address, http):
            assert (
                "run `pointsman-server migrate`"
                in get_json(f"{http}/health/ready")[1]["dependencies"]["postgres"]["detail"]
            )

            assert run("pointsman-server", "migrate", DATABASE_URL=empty).returncode == 0

            assert eventually(lambda: get_json(f"{http}/health/ready")[0] == 200)
            with Client(address) as client:
                client.create("team-a/payments/prod/v1", URL)
    finally:
        drop_database(empty)


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_workers_share_the_port_and_their_metrics_are_summed(environ, transport):
    port, http_port = free_port(), free_port()
    http = f"http://127.0.0.1:{http_port}"
    fixed = {"POINTSMAN_LISTEN": f"127.0.0.1:{port}", "POINTSMAN_HTTP_LISTEN": f"127.0.0.1:{http_port}"}
    with server_process("serve", "--workers", "2", "--transport", transport, **(environ | fixed)) as process:
        process.wait_for_log("serving", times=2)
        calls = 0
        for _ in range(12):
            # Each client is a connection, and the kernel gives each connection to some worker.
            with Client(f"127.0.0.1:{port}") as client:
                for number in range(5):
                    calls += 1
                    with pytest.raises(RouteNotFound):
                        client.resolve(f"team-a/payments/prod/v{number}")

        pattern = r'pointsman_resolve_requests_total{outcome="absent"}'
        assert eventually(lambda: get_metric(http, pattern) == calls), get_metric(http, pattern)

        workers = psutil.Process(process.process.pid).children()
        assert len(workers) == 2
        workers[1].kill()
        process.wait_for_log("serving", times=3)
        assert eventually(lambda: get_metric(http, "pointsman_worker_restarts_total") == 1)
        assert eventually(lambda: get_metric(http, "pointsman_workers") == 2)
        with Client(f"127.0.0.1:{port}") as client:
            client.create("team-a/payments/prod/v1", URL)
        assert process.stop() == 0
        assert not any(worker.is_running() for worker in workers)


def test_workers_that_are_pinned_stay_on_their_cores_also_those_that_are_started_anew(environ):
    fixed = {"POINTSMAN_LISTEN": f"127.0.0.1:{free_port()}", "POINTSMAN_HTTP_LISTEN": f"127.0.0.1:{free_port()}"}
    pinned = {"POINTSMAN_WORKERS": "2", "POINTSMAN_PIN_WORKERS": "true"}
    cores = sorted(os.sched_getaffinity(0))
    wanted = sorted([[cores[0]], [cores[1 % len(cores)]]])
    with server_process("serve", **(environ | fixed | pinned)) as process:
        supervisor = psutil.Process(process.process.pid)
        process.wait_for_log("serving", times=2)
        assert sorted(worker.cpu_affinity() for worker in supervisor.children()) == wanted
        supervisor.children()[1].kill()
        process.wait_for_log("serving", times=3)
        assert sorted(worker.cpu_affinity() for worker in supervisor.children()) == wanted
        assert supervisor.cpu_affinity() == cores


def test_roles_decide_what_a_process_does(environ):
    with serve("--roles", "api", **environ) as (_, address, http), Client(address) as client:
        revision = client.create("team-a/payments/prod/v1", URL).revision
        assert set(get_json(f"{http}/health/ready")[1]["dependencies"]) == {"postgres", "redis", "writes"}
        assert audited(environ) == []

        with serve("--roles", "relay,audit", **environ) as (worker, _, _http):
            assert eventually(lambda: audited(environ) == [revision]), worker.errors


@pytest.mark.go
def test_grpcurl_and_the_health_probe_call_it(environ):
    grpcurl = require("grpcurl", tool("grpcurl"), "go install builds it: make tools")
    probe = require("grpc-health-probe", tool("grpc-health-probe"), "go install builds it: make tools")

    def call(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([grpcurl, "-plaintext", *arguments], capture_output=True, text=True, check=False)

    for transport in TRANSPORTS:
        with serve("--transport", transport, **environ) as (_, address, _http):
            key = f'{{"tenant":"team-a","service":"payments","env":"prod","version":"{transport}"}}'
            service = "pointsman.v1.RouteService"

            assert service in call(address, "list").stdout.split()
            assert "rpc Resolve" in call(address, "describe", service).stdout
            assert "rpc Resolve" in call(address, "describe", f"{service}.Resolve").stdout
            assert "RouteKey key = 1" in call(address, "describe", "pointsman.v1.ResolveRequest.key").stdout
            statuses = json.loads(call(address, "grpc.health.v1.Health/List").stdout)["statuses"]
            assert statuses["readiness"] == {"status": "SERVING"}
            created = call("-d", f'{{"key":{key},"url":"{URL}"}}', address, f"{service}/Create")
            assert created.returncode == 0, created.stderr
            assert URL in call("-d", f'{{"key":{key}}}', address, f"{service}/Resolve").stdout
            absent = '{"key":{"tenant":"a","service":"b","env":"c","version":"d"}}'
            missing = call("-d", absent, address, f"{service}/Get")
            assert "NotFound" in missing.stderr
            assert "ROUTE_NOT_FOUND" in missing.stderr
            for name in ("", service, "readiness", "liveness"):
                done = subprocess.run([probe, f"-addr={address}", f"-service={name}"], capture_output=True, check=False)
                assert done.returncode == 0, done.stderr
