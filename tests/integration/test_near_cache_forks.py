"""A process with a near-cache forks: the child has a connection of its own, and the parent goes on."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pointsman import Client
from tests.support.processes import BIN, clean_environ, free_port, get_json
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

KEY = "team-a/payments/prod/v1"
URL = "https://one.internal"
FORKS = 8
ROOT = Path(__file__).parents[2]


@pytest.fixture
def server(database_url: str, redis_url: str) -> Iterator[RunningServer]:
    with serving(settings(database_url=database_url, redis_url=redis_url)) as running:
        with Client(running.address) as client:
            client.create(KEY, URL)
        yield running


def check(reports: list[dict[str, Any]]) -> None:
    for each in reports:
        assert (each["first"], each["url"], each["ready"], each["live"]) == (URL, URL, True, True)


@pytest.mark.parametrize("support", ["", "1"])
def test_under_multiprocessing(server: RunningServer, support: str) -> None:
    """``support``: whether the Python part of gRPC takes part in forks; the core does so unless that is 0."""
    command = [sys.executable, "-m", "tests.support.near_cache_program", server.address, KEY, str(FORKS)]
    environ = {**clean_environ(), **({"GRPC_ENABLE_FORK_SUPPORT": support} if support else {})}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    reports = json.loads(done.stdout)
    check(reports)
    parent, *children, after = reports
    assert after["ids"] == parent["ids"]
    assert len({each["ids"][0] for each in (parent, *children)}) == FORKS + 1


def test_under_gunicorn_with_preload(server: RunningServer, tmp_path: Path) -> None:
    port = free_port()
    command = [str(BIN / "gunicorn"), "--preload", "--workers", "2", "--bind", f"127.0.0.1:{port}"]
    environ = {**clean_environ(), "NEAR_CACHE_SERVER": server.address, "NEAR_CACHE_KEY": KEY}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            [*command, "tests.support.near_cache_program:application()"],
            cwd=ROOT,
            env=environ,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        answers: dict[int, list[dict[str, Any]]] = {}

        def both_answered() -> bool:
            try:
                reports: Any = get_json(f"http://127.0.0.1:{port}/")[1]
            except OSError:
                return False
            answers[reports[1]["pid"]] = reports
            return len(answers) == 2

        assert eventually(both_answered, 60), (tmp_path / "log").read_text()
        for reports in answers.values():
            check(reports)
        ids = [reports[1]["ids"][0] for reports in answers.values()]
        assert len({*ids, reports[0]["ids"][0]}) == 3
        process.terminate()
        assert process.wait(30) == 0
    finally:
        if process.poll() is None:
            os.killpg(process.pid, 9)
            process.wait()
