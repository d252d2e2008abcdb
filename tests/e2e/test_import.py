"""``pointsman import`` of many rows, with servers and commands that are killed in the middle: everything once."""

import json
import signal
import subprocess
from collections import Counter
from pathlib import Path
from typing import Any

import psycopg
import pytest

from tests.support.processes import BIN, clean_environ, free_port, run, serve, server_process
from tests.support.waiting import eventually

ROWS = 60_000


@pytest.fixture
def environ(database_url: str, redis_url: str) -> dict[str, str]:
    """PostgreSQL and Redis, and patience with a slow machine."""
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "POINTSMAN_ROLES": "api",
        "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
        "POINTSMAN_DATABASE_TIMEOUT_SECONDS": "30",
    }


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """As many rows as take several calls."""
    path = tmp_path / "routes.jsonl"
    with path.open("w") as rows:
        for number in range(ROWS):
            key = f"team-{number // 1000}/s{number}/prod/v1"
            rows.write(json.dumps({"key": key, "url": f"https://s{number}.internal", "labels": {"tier": "1"}}) + "\n")
    return path


def count(database_url: str) -> int:
    with psycopg.connect(database_url) as connection:
        row = connection.execute("SELECT count(*) FROM route_changes").fetchone()
    assert row
    return int(row[0])


def check_everything_once(database_url: str) -> None:
    with psycopg.connect(database_url) as connection:
        changes = connection.execute("SELECT revision, kind, tenant, service FROM route_changes ORDER BY 1").fetchall()
        row = connection.execute("SELECT count(*) FROM routes").fetchone()
    assert [change[0] for change in changes] == list(range(1, ROWS + 1))
    assert Counter(change[1] for change in changes) == {"CREATED": ROWS}
    assert len({change[2:] for change in changes}) == ROWS
    assert row == (ROWS,)


def command(address: str, file: Path, *more: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [str(BIN / "pointsman"), "--server", address, "import", str(file), *more],
        env=clean_environ(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finish(process: subprocess.Popen[str]) -> tuple[int, str, str]:
    try:
        out, errors = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, out, errors


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_a_server_that_is_killed_and_started_again_is_waited_for(
    environ: dict[str, Any], database_url: str, file: Path, transport: str
) -> None:
    port = f"127.0.0.1:{free_port()}"
    settings = {**environ, "POINTSMAN_LISTEN": port, "POINTSMAN_HTTP_LISTEN": "127.0.0.1:0"}
    with server_process("serve", "--transport", transport, **settings) as first:
        first.wait_for_log("serving")
        importing = command(port, file)
        assert eventually(lambda: count(database_url) > 0, 60)
        first.stop(signal.SIGKILL)
    with server_process("serve", "--transport", transport, **settings) as second:
        second.wait_for_log("serving")
        code, out, errors = finish(importing)
    assert (code, out) == (0, f"{ROWS} rows: {ROWS} created, 0 updated, 0 unchanged, 0 failed\n"), errors
    check_everything_once(database_url)


def test_a_command_that_is_killed_can_be_resumed(environ: dict[str, Any], database_url: str, file: Path) -> None:
    with serve(**environ) as (_, address, _):
        importing = command(address, file, "--resume", "the-move")
        assert eventually(lambda: count(database_url) > 0, 60)
        importing.send_signal(signal.SIGKILL)
        finish(importing)
        done = run("pointsman", "--server", address, "import", str(file), "--resume", "the-move")
        assert (done.returncode, done.stdout) == (
            0,
            f"{ROWS} rows: {ROWS} created, 0 updated, 0 unchanged, 0 failed\n",
        ), done.stderr
        check_everything_once(database_url)
        # Another run of the same file finds every route as requested.
        done = run("pointsman", "--server", address, "import", str(file))
    assert done.stdout == f"{ROWS} rows: 0 created, 0 updated, {ROWS} unchanged, 0 failed\n"
