"""The commands that move traffic, on a real server: operators at once, an exact way back, and a drain with readers."""

import itertools
import json
import signal
import subprocess
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from pointsman import Client
from tests.support.processes import BIN, clean_environ, run, serve
from tests.support.waiting import eventually

FAMILY = "team-a/payments/prod"
URL = "https://payments.internal:8443"


@pytest.fixture
def address(database_url: str, redis_url: str) -> Iterator[str]:
    settings = {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "POINTSMAN_ROLES": "api",
        "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
        "POINTSMAN_DATABASE_TIMEOUT_SECONDS": "30",
    }
    with serve(**settings) as (_, address, _):
        yield address


@pytest.fixture
def client(address: str) -> Iterator[Client]:
    with Client(address, timeout=30) as client:
        for version in ("v1", "v2", "v3"):
            client.create(f"{FAMILY}/{version}", URL, labels={"version": version})
        yield client


def pointsman(address: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("pointsman", "--timeout", "30", "--server", address, *arguments)


def document(done: subprocess.CompletedProcess[str]) -> dict[str, Any]:
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def test_of_two_who_shift_at_once_none_overwrites_the_other_unseen(address: str, client: Client) -> None:
    client.set_traffic(FAMILY, {"v1": 10_000})
    with ThreadPoolExecutor(4) as threads:
        shares = [("v2=10",), ("v3=20",), ("v2=30",), ("v3=5",)]
        ends = list(threads.map(lambda share: pointsman(address, "traffic", "shift", FAMILY, *share), shares))
    assert {end.returncode for end in ends} <= {0, 4}, [end.stderr for end in ends]
    changes = [change for change in client.changes(tenant="team-a") if change.traffic_after and change.traffic_before]
    assert len(changes) == sum(end.returncode == 0 for end in ends)
    # Each one was made of what the one before it had made: what it did not name keeps its proportions.
    for before, after in itertools.pairwise(changes):
        assert after.traffic_before == before.traffic_after


def test_a_release_of_a_file_is_taken_back_exactly(address: str, client: Client, tmp_path: Path) -> None:
    client.set_traffic(FAMILY, {"v1": 5_000, "v2": 5_000})
    client.set_traffic(FAMILY, {"v1": 7_500, "v2": 2_500}, reason="points of v2 are scattered")
    client.create("team-b/cart/prod/v1", URL)
    before = list(client.list()), client.get_traffic(FAMILY)
    file = tmp_path / "release.yaml"
    file.write_text(
        "routes:\n"
        f"- {{key: {FAMILY}/v1, url: 'https://new.internal', active: false, labels: {{}}}}\n"
        f"- {{key: {FAMILY}/v4, url: '{URL}'}}\n"
        f"- {{key: team-b/cart/prod/v2, url: '{URL}'}}\n"
        "traffic:\n"
        f"- {{key: {FAMILY}, targets: {{v4: 99.5%, v2: 0.5%}}, fallbacks: [v3]}}\n"
        "- {key: team-b/cart/prod, targets: {v1: 50%, v2: 50%}}\n"
    )
    planned = document(pointsman(address, "apply", "-f", str(file), "--dry-run", "--json"))
    applied = document(pointsman(address, "apply", "-f", str(file), "--json", "--reason", "release 4"))
    assert planned["change_sets"] == applied["change_sets"]
    (made,) = applied["change_sets"]
    changes = list(client.changes(after_revision=made["change_set_id"] - 1))
    assert {(each.change_set_id, each.change_set_size) for each in changes} == {
        (made["change_set_id"], made["change_set_size"])
    }
    assert {each.reason for each in changes} == {"release 4"}
    undone = document(pointsman(address, "revert", str(made["change_set_id"]), "--json", "--reason", "it fails"))
    assert undone["change_set_size"] > 0
    routes, traffic = list(client.list()), client.get_traffic(FAMILY)
    assert [(each.key, each.url, each.active, each.labels) for each in routes] == [
        (each.key, each.url, each.active, each.labels) for each in before[0]
    ]
    assert (traffic.targets, traffic.fallbacks, traffic.slices) == (
        before[1].targets,
        before[1].fallbacks,
        before[1].slices,
    )
    # Who is refused is named by its line, and nothing is made.
    last = undone["revision"]
    file.write_text(
        file.read_text().replace("fallbacks: [v3]", "fallbacks: [v9]").replace("'https://new.internal'", f"'{URL}'")
    )
    refused = pointsman(address, "apply", "-f", str(file))
    assert refused.returncode == 4
    assert f"error: {file}:6: {FAMILY}: " in refused.stderr
    assert "(TARGET_NOT_FOUND)" in refused.stderr
    assert client.get(f"{FAMILY}/v1").active
    assert list(client.changes(after_revision=last)) == []


@contextmanager
def reading(address: str, key: str) -> Iterator[threading.Event]:
    """Read a key again and again, until the event is set that this gives."""
    stop = threading.Event()

    def read() -> None:
        with Client(address) as client:
            while not stop.wait(0.05):
                client.resolve(key)

    thread = threading.Thread(target=read)
    thread.start()
    try:
        yield stop
    finally:
        stop.set()
        thread.join()


def test_a_drain_waits_for_readers_can_be_stopped_and_goes_on(address: str, client: Client) -> None:
    key = f"{FAMILY}/v2"
    client.set_traffic(FAMILY, {"v1": 9_000, "v2": 1_000})
    drain = ("deactivate", key, "--drain", "--if-unused-for", "20s", "--wait", "60s")
    with reading(address, key) as stop:
        assert eventually(lambda: client.get_usage(key).readers)
        command = [str(BIN / "pointsman"), "--timeout", "30", "--server", address, *drain]
        process = subprocess.Popen(
            command, env=clean_environ(), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        try:
            assert eventually(lambda: client.get_traffic(FAMILY).weights == {"v1": 10_000})
            assert process.stderr is not None
            assert "done: change set" in process.stderr.readline() + process.stderr.readline()
            process.send_signal(signal.SIGINT)
            _, err = process.communicate(timeout=60)
        finally:
            process.kill()
            process.wait()
        assert f"{key} is not deactivated, but the traffic gives it no calls: run the same command again" in err
        short = pointsman(address, *drain[:-1], "1s")
        assert short.returncode == 5
        assert "is still read after" in short.stderr
        assert "anonymous: last at" in short.stderr
        assert client.get(key).active
        stop.set()
    done = pointsman(address, *drain)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1].startswith(f"deactivated {key} at revision")
    assert not client.get(key).active
    gone = pointsman(address, "delete", key, "--drain", "--if-unused-for", "20s")
    assert gone.returncode == 0, gone.stderr
