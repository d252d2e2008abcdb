"""``pointsman-server dev``: everything on one machine, and nothing left behind."""

import signal
import socket

import psutil
import pytest

from pointsman import Client
from tests.support.engines import fresh_redis
from tests.support.processes import get_json, run, server_process
from tests.support.waiting import eventually

OTHER_PORTS = ("--http-listen", "127.0.0.1:0", "--xds-listen", "127.0.0.1:0")
PORTS = ("--listen", "127.0.0.1:0", *OTHER_PORTS)


def ready(process) -> tuple[str, str]:
    match = process.wait_for_output(r"gRPC on localhost:(\d+), metrics and health on (http://localhost:\d+)")
    return f"127.0.0.1:{match[1]}", match[2]


def descendants(process) -> list[psutil.Process]:
    return psutil.Process(process.process.pid).children(recursive=True)


def gone(processes: list[psutil.Process]) -> bool:
    return not any(process.is_running() and process.status() != psutil.STATUS_ZOMBIE for process in processes)


def test_a_stranger_creates_and_resolves_a_route(tmp_path):
    with server_process("dev", "--data", str(tmp_path / "d"), *PORTS) as process:
        address, http = ready(process)

        created = run("pointsman", "--server", address, "create", "team-a/shop/prod/v1", "https://shop.internal")
        resolved = run("pointsman", "--server", address, "resolve", "team-a/shop/prod/v1")

        assert created.returncode == 0, created.stderr
        assert resolved.stdout == "https://shop.internal\n"
        # A busy machine may take a round more.
        assert eventually(lambda: get_json(f"{http}/health/ready")[1]["status"] == "ready")
        code, health = get_json(f"{http}/health/ready")
        assert code == 200
        assert {name: state["up"] for name, state in health["dependencies"].items()} == {
            "postgres": True,
            "redis": True,
            "kafka": True,
            "relay": True,
            "writes": True,
        }


def test_xds_is_served_too_unless_the_roles_are_named(tmp_path):
    data = str(tmp_path / "d")
    with server_process("dev", "--data", data, *PORTS) as process:
        port = process.wait_for_output(r", xDS on localhost:(\d+)")[1]

        explained = run("pointsman", "xds", "explain", "team-a/shop/prod/v1", "--xds", f"127.0.0.1:{port}")

        assert explained.returncode == 0, explained.stderr
        assert "end with NOT_FOUND" in explained.stdout
        assert process.stop() == 0
    with server_process("dev", "--data", data, "--roles", "api,relay,cache", *PORTS) as process:
        ready(process)
        assert "xDS" not in process.output


def test_the_demo_is_there_and_data_lasts_until_fresh(tmp_path):
    data = str(tmp_path / "d")
    with server_process("dev", "--data", data, "--demo", *PORTS) as process, Client(ready(process)[0]) as client:
        assert client.resolve("team-a/payments/prod/v2").route.url.startswith("https://payments-v2.team-a")
        routes = len(list(client.list()))
        client.delete("team-a/payments/prod/v2")
        assert process.stop() == 0
    with server_process("dev", "--data", data, *PORTS) as process, Client(ready(process)[0]) as client:
        assert len(list(client.list())) == routes - 1
        assert process.stop(signal.SIGINT) == 0
    with server_process("dev", "--data", data, "--fresh", *PORTS) as process, Client(ready(process)[0]) as client:
        assert list(client.list()) == []


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGKILL])
def test_nothing_outlives_it(tmp_path, name):
    with server_process("dev", "--data", str(tmp_path / "d"), *PORTS) as process:
        ready(process)
        children = descendants(process)
        assert len(children) >= 3

        process.stop(name)

        assert eventually(lambda: gone(children))


def test_changes_reach_the_audit_log_through_the_embedded_kafka(tmp_path):
    with server_process("dev", "--data", str(tmp_path / "d"), "--demo", *PORTS) as process:
        _, http = ready(process)

        def consumed(consumer: str) -> float:
            from tests.support.processes import get_metric

            return get_metric(http, rf'pointsman_consumed_changes_total{{consumer="{consumer}"}}') or 0

        assert eventually(lambda: consumed("audit") >= 240, 60), process.errors
        assert eventually(lambda: consumed("cache") >= 240, 60), process.errors


def test_an_engine_of_the_environment_is_used_instead(tmp_path, database_url, engines):
    redis_url = fresh_redis(engines.urls["REDIS_URL"])
    with server_process(
        "dev", "--data", str(tmp_path / "d"), *PORTS, DATABASE_URL=database_url, REDIS_URL=redis_url
    ) as process:
        address, _ = ready(process)
        names = [child.name() for child in descendants(process)]
        with Client(address) as client:
            client.create("team-a/shop/prod/v1", "https://shop.internal")

        assert not any("postgres" in name or "redis" in name for name in names)

    import psycopg

    with psycopg.connect(database_url) as connection:
        assert connection.execute("SELECT count(*) FROM routes").fetchone() == (1,)


def test_a_taken_port_is_named(tmp_path):
    with socket.socket() as holder:
        holder.bind(("127.0.0.1", 0))
        holder.listen()
        address = f"127.0.0.1:{holder.getsockname()[1]}"
        with server_process("dev", "--data", str(tmp_path / "d"), "--listen", address, *OTHER_PORTS) as process:
            assert process.process.wait(60) == 1

            assert f"cannot listen on {address} (POINTSMAN_LISTEN)" in process.errors
            assert "Traceback" not in process.errors


def test_data_in_use_is_told(tmp_path):
    data = str(tmp_path / "d")
    with server_process("dev", "--data", data, *PORTS) as first:
        ready(first)
        with server_process("dev", "--data", data, *PORTS) as second:
            assert second.process.wait(60) == 1
            assert "in use" in second.errors
            assert "Traceback" not in second.errors
