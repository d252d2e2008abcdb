"""examples/nginx_map.py: the map follows the routes, whole, and nginx is told; with a fake reload command."""

import importlib.util
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import grpc
import pytest

from pointsman import Client, Route, RouteKey
from tests.support.fake_route_service import Failure, FakeServer
from tests.support.waiting import eventually

EXAMPLE = Path(__file__).parents[3] / "clients/python/examples/nginx_map.py"
NOW = datetime(2026, 1, 31, tzinfo=UTC)
URL = "https://one.internal"
ONE = 'a/b/c/v1 "https://one.internal";\n'


def _loaded() -> Any:
    spec = importlib.util.spec_from_file_location("nginx_map", EXAMPLE)
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


nginx_map = _loaded()


def route(key: str, url: str = URL) -> Route:
    return Route(RouteKey.parse(key), url, True, {}, 1, NOW, NOW)


class Reload:
    """A command that keeps the map which it found each time, and fails as often as it is told."""

    def __init__(self, directory: Path) -> None:
        self.map = directory / "routes.map"
        self._seen = directory / "seen"
        self._failures = directory / "failures"
        script = directory / "reload.py"
        script.write_text(
            "import json, pathlib, sys\n"
            f"failures = pathlib.Path({str(self._failures)!r})\n"
            f"with open({str(self._seen)!r}, 'a') as seen:\n"
            f"    seen.write(json.dumps(pathlib.Path({str(self.map)!r}).read_text()) + '\\n')\n"
            "if failures.exists():\n"
            "    failures.unlink()\n"
            "    sys.exit(1)\n"
        )
        self.command = f"{sys.executable} {script}"

    def fail_once(self) -> None:
        self._failures.touch()

    @property
    def seen(self) -> list[str]:
        return [json.loads(line) for line in self._seen.read_text().splitlines()] if self._seen.exists() else []


@pytest.fixture
def reload(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Reload:
    monkeypatch.setattr(nginx_map, "AGAIN_SECONDS", 0.1)
    return Reload(tmp_path)


@contextmanager
def kept(server: FakeServer, reload: Reload, **options: Any) -> Iterator[None]:
    stop = threading.Event()
    with Client(server.target) as client, client.cached(tenants=["a"], **options) as near_cache:
        arguments = (near_cache, reload.map, reload.command, stop)
        thread = threading.Thread(target=nginx_map.keep_current, args=arguments)
        thread.start()
        try:
            yield
        finally:
            stop.set()
            thread.join(20)
    assert not thread.is_alive()


def test_the_map_follows_the_routes(server: FakeServer, reload: Reload) -> None:
    server.add("a/b/c/v1", URL)
    server.add("z/b/c/v1", URL)
    with kept(server, reload):
        assert eventually(lambda: reload.seen == [ONE])
        server.add("a/b/c/v2", "https://two.internal")
        assert eventually(lambda: len(reload.seen) == 2)
    assert reload.seen[1] == ONE + 'a/b/c/v2 "https://two.internal";\n'
    assert reload.map.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in reload.map.parent.glob(".routes*")] == []


def test_a_reload_that_failed_is_tried_again(server: FakeServer, reload: Reload) -> None:
    server.add("a/b/c/v1", URL)
    reload.fail_once()
    with kept(server, reload):
        assert eventually(lambda: reload.seen == [ONE, ONE])


def test_a_map_that_stays_the_same_is_not_reloaded(server: FakeServer, reload: Reload) -> None:
    reload.map.write_text(ONE)
    server.add("a/b/c/v1", URL)
    server.add("a/b/c/v2", URL, active=False)
    with kept(server, reload):
        server.add("a/b/c/v3", "https://three.internal")
        assert eventually(lambda: len(reload.seen) == 1)
    assert "v3" in reload.seen[0]


def test_without_a_server_the_last_map_stays(server: FakeServer, reload: Reload) -> None:
    reload.map.write_text(ONE)
    server.fail("Watch", *[Failure(grpc.StatusCode.UNAVAILABLE, "away")] * 3)
    with kept(server, reload):
        assert eventually(lambda: len(server.called("Watch")) >= 2)
        assert reload.map.read_text() == ONE


def test_a_table_that_the_server_calls_empty_empties_the_map(server: FakeServer, reload: Reload) -> None:
    reload.map.write_text(ONE)
    with kept(server, reload):
        assert eventually(lambda: reload.seen == [""])


def test_what_nginx_would_not_read_is_left_out() -> None:
    routes = [route("a/b/c/v1"), route("a/b/c/V2"), route("a/b/c/v2"), route("a/b/c/v3", "https://x.internal/$a")]
    assert nginx_map.rendered(routes) == ONE


def test_a_map_that_cannot_be_written_leaves_the_old_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "routes.map"
    path.write_text("old")

    def full(handle: int) -> None:
        raise OSError("no space")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="no space"):
        nginx_map.replaced(path, "new")
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_the_program_runs_until_it_is_told_to_stop(server: FakeServer, reload: Reload, tmp_path: Path) -> None:
    server.add("a/b/c/v1", URL)
    arguments = ["--tenant", "a", "--map", str(reload.map), "--reload", reload.command, "--cache", str(tmp_path / "x")]
    process = subprocess.Popen(
        [sys.executable, str(EXAMPLE), *arguments],
        env={**os.environ, "POINTSMAN_SERVER": server.target},
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert eventually(lambda: reload.seen == [ONE])
        process.send_signal(signal.SIGTERM)
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.communicate()
