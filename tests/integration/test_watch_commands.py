"""The commands that are built on Watch, on a real server and on both transports: watch, --wait and who."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from pointsman import Client
from tests.support.pause import pause, resume
from tests.support.servers import RunningServer, serving, settings
from tests.support.tcp_proxy import TcpProxy
from tests.support.waiting import eventually

KEY = "team-a/payments/prod/v1"
ONE, TWO, THREE = "https://one.internal", "https://two.internal", "https://three.internal"
SECONDS = 60
READY_SECONDS = 20.0
POINTSMAN = [sys.executable, "-m", "pointsman.cli"]


@pytest.fixture(params=["grpcio", "envoy"])
def chosen(request: pytest.FixtureRequest, database_url: str, redis_url: str) -> Any:
    return settings(database_url=database_url, redis_url=redis_url, transport=request.param)


@pytest.fixture
def server(chosen: Any) -> Iterator[RunningServer]:
    with serving(chosen) as running:
        yield running


def command(address: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environ = {**os.environ, "POINTSMAN_SERVER": address}
    return subprocess.run(
        [*POINTSMAN, *arguments], env=environ, capture_output=True, text=True, timeout=SECONDS, check=False
    )


class Watched:
    """A ``pointsman watch --json`` of its own process."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process

    def event(self, kind: str) -> Any:
        """Return the next event of a kind."""
        assert self.process.stdout
        for line in self.process.stdout:
            document = json.loads(line)
            if document["event"] == kind:
                return document
        raise AssertionError("the command ended")

    def urls(self) -> list[str]:
        """Return the URLs of the next change set."""
        return [change["after"]["url"] for change in self.event("changes")["changes"]]

    def interruption(self) -> Any:
        """Return the next of stderr."""
        assert self.process.stderr
        return json.loads(self.process.stderr.readline())["interrupted"]


@contextmanager
def watching(address: str) -> Iterator[Watched]:
    process = subprocess.Popen(
        [*POINTSMAN, "--server", address, "watch", "--tenant", "team-a", "--json"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        yield Watched(process)
        process.send_signal(signal.SIGINT)
        assert process.wait(SECONDS) == 0
    finally:
        process.kill()
        process.communicate()


def test_watch_goes_on_after_a_restart_without_a_gap(chosen: Any) -> None:
    with ExitStack() as stack:
        with serving(chosen) as first:
            with Client(first.address) as writer:
                writer.create(KEY, ONE)
            shown = stack.enter_context(watching(first.address))
            assert shown.event("snapshot")["route_count"] == 1
            shown.event("checkpoint")
        assert shown.interruption()["resume"].startswith("1/")
        with serving(chosen.model_copy(update={"listen": first.address})) as second:
            with Client(second.address) as writer:
                writer.update(KEY, url=TWO)
            assert shown.urls() == [TWO]


def test_watch_goes_on_after_a_connection_that_is_half_open(server: RunningServer) -> None:
    with Client(server.address) as writer, TcpProxy(server.address) as proxy:
        writer.create(KEY, ONE)
        with watching(proxy.address) as shown:
            shown.event("checkpoint")
            proxy.swallow = True
            writer.update(KEY, url=TWO)
            told = shown.interruption()
            proxy.swallow = False
            writer.update(KEY, url=THREE)
            assert told["code"] == "UNAVAILABLE"
            assert [shown.urls(), shown.urls()] == [[TWO], [THREE]]


def test_what_changes_together_is_shown_together(server: RunningServer) -> None:
    with Client(server.address) as writer:
        writer.create(KEY, ONE)
        writer.create("team-a/payments/prod/v2", TWO, active=False)
        with watching(server.address) as shown:
            shown.event("checkpoint")
            writer.activate("team-a/payments/prod/v2", exclusive=True)
            assert shown.urls() == [TWO, ONE]


def test_wait_waits_for_a_near_cache(server: RunningServer) -> None:
    with Client(server.address) as client, client.cached(tenants=["team-a"], name="cart@host-1") as cache:
        assert cache.wait_ready(READY_SECONDS)
        done = command(server.address, "create", KEY, ONE, "--wait=20s", "--json")
        told = json.loads(done.stdout)["propagation"]
        assert (done.returncode, told["complete"], told["watcher_count"], told["all_servers"]) == (0, True, 1, True)
        assert cache.resolve(KEY).url == ONE
        elsewhere = command(server.address, "create", "other/payments/prod/v1", ONE, "--wait")
    assert "nobody watches" in elsewhere.stdout


def test_wait_names_who_is_behind(server: RunningServer) -> None:
    program = (
        "import sys, time\nfrom pointsman import Client\n"
        "with Client(sys.argv[1]) as client, client.cached(name='cart@host-1') as cache:\n"
        "    assert cache.wait_ready(20)\n    print('ready', flush=True)\n    time.sleep(60)\n"
    )
    watcher = subprocess.Popen([sys.executable, "-c", program, server.address], stdout=subprocess.PIPE, text=True)
    try:
        assert watcher.stdout
        assert watcher.stdout.readline() == "ready\n"
        pause(watcher)
        done = command(server.address, "create", KEY, ONE, "--wait=1s")
        resume(watcher)
        later = command(server.address, "deactivate", KEY, "--wait=30s")
    finally:
        watcher.kill()
        watcher.communicate()
    assert done.returncode == 5
    assert "cart@host-1" in done.stderr
    assert later.returncode == 0, later.stderr
    assert "1 of 1 watchers have revision" in later.stdout


def test_who_names_those_who_read(server: RunningServer) -> None:
    with Client(server.address) as client:
        client.create(KEY, ONE)
        client.resolve(KEY)
    assert eventually(lambda: "anonymous" in command(server.address, "who", KEY).stdout)
