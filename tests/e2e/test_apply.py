"""``pointsman apply`` of many routes, and of a switch of versions that somebody watches."""

import json
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psycopg
import pytest

from pointsman import Client, Consistency
from tests.support.processes import run, serve

COUNT = 6_000
"""Several change sets for each of what is new, what changes and what goes."""


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


def written(path: Path, *states: tuple[str, bool], count: int = COUNT) -> Path:
    """Write a file with ``count`` services in which each version has a url and is active or not; the older first."""
    path.write_text(
        "routes:\n"
        + "".join(
            f"- {{key: team-{number // 1000}/s{number}/prod/v{version}, url: '{url}', active: {str(active).lower()}}}\n"
            for version, (url, active) in enumerate(states)
            for number in range(count)
        )
    )
    return path


def apply(address: str, path: Path, *more: str) -> dict[str, int]:
    done = run("pointsman", "--server", address, "apply", "-f", str(path), "--json", *more)
    assert done.returncode == 0, done.stderr
    summary: dict[str, int] = json.loads(done.stdout)["summary"]
    return summary


def history(database_url: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(database_url) as connection:
        return connection.execute(
            "SELECT revision, kind, service, version, change_set_id FROM route_changes ORDER BY 1"
        ).fetchall()


def test_many_routes_become_what_the_file_says_each_by_one_change(
    address: str, database_url: str, tmp_path: Path
) -> None:
    old, new = ("https://old.internal", True), ("https://new.internal", True)
    assert apply(address, written(tmp_path / "1.yaml", old)) == {"create": COUNT, "change": 0, "delete": 0}
    gone = ("https://old.internal", False)
    assert apply(address, written(tmp_path / "2.yaml", gone, new)) == {"create": COUNT, "change": COUNT, "delete": 0}
    path = written(tmp_path / "3.yaml", gone, new, count=COUNT - 100)
    assert apply(address, path, "--prune", "--yes") == {"create": 0, "change": 0, "delete": 200}
    assert apply(address, path, "--prune", "--yes") == {"create": 0, "change": 0, "delete": 0}
    changes = history(database_url)
    assert [change[0] for change in changes] == list(range(1, 3 * COUNT + 201))
    kinds = [change[1] for change in changes]
    assert Counter(kinds) == {"CREATED": 2 * COUNT, "DEACTIVATED": COUNT, "DELETED": 200}
    # Nothing of a family goes before what is new of it is there, in the same change set.
    of_first = [change[1:4] for change in changes if change[2] == "s0"]
    assert of_first == [("CREATED", "s0", "v0"), ("CREATED", "s0", "v1"), ("DEACTIVATED", "s0", "v0")]
    sets = Counter(change[4] for change in changes)
    assert max(sets.values()) == 1000
    assert len(sets) == 3 * COUNT // 1000 + 1


def test_who_resolves_during_a_switch_always_finds_a_version(address: str, tmp_path: Path) -> None:
    url = "https://x.internal"
    apply(address, written(tmp_path / "1.yaml", (url, True), (url, False)))
    families = [[f"team-{number // 1000}/s{number}/prod/v{version}" for version in (0, 1)] for number in (0, COUNT - 1)]
    looks: list[bool] = []
    stop = threading.Event()

    def watch() -> None:
        with Client(address) as client:
            while not stop.is_set():
                for family in families:
                    results = client.batch_resolve(family, consistency=Consistency.FULLY_CONSISTENT)
                    looks.append(any(result.error is None for result in results))

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        summary = apply(address, written(tmp_path / "2.yaml", (url, False), (url, True)))
    finally:
        stop.set()
        watcher.join()
    assert summary == {"create": 0, "change": 2 * COUNT, "delete": 0}
    assert looks
    assert all(looks)
