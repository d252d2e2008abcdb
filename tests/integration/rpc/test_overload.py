"""Envoy at the bound of its heap: new requests are refused, and what is in progress ends as it would have."""

import asyncio
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from pointsman_server.app import envoy
from pointsman_server.app.listening import bindable
from pointsman_server.embedded.tied import tied_to_this_process
from pointsman_server.rpc.transport.envoy import process
from pointsman_server.rpc.transport.envoy.admin import Admin
from tests.support import heap_holder, http2
from tests.support.envoy import ROOT
from tests.support.servers import settings
from tests.support.waiting import eventually

BOUND = 512
# Of the bound: above the share from which requests are refused, below that from which connections are.
SHARE = 0.925
PATIENCE_SECONDS = 30
UNAVAILABLE = "14"
SERVED, REFUSED = heap_holder.BODY.decode(), UNAVAILABLE


@dataclass(frozen=True)
class Running:
    """An Envoy before the holder of memory."""

    port: int
    socket: Path
    file: Path

    def admin(self, path: str) -> str:
        with httpx.Client(transport=httpx.HTTPTransport(uds=str(self.socket)), base_url="http://envoy") as client:
            return client.get(path, timeout=PATIENCE_SECONDS).text

    def overload(self) -> None:
        """Hold so much that requests are refused, and connections are not."""
        before = json.loads(self.admin("/memory"))
        taken = int(before["heap_size"]) - int(before["pageheap_unmapped"])
        self.file.write_text(str(int(BOUND * SHARE) - (taken >> 20)))
        assert eventually(lambda: "_requests.active: 1" in self.admin("/stats?filter=stop_accepting_requests"))

    def recover(self) -> None:
        self.file.write_text("")

    def finish_slow(self) -> None:
        self.file.with_suffix(".finish").touch()


@pytest.fixture
def running() -> Iterator[Running]:
    installation = process.Installation.find()
    with tempfile.TemporaryDirectory(prefix="pointsman-envoy-") as created:
        directory = Path(created)
        file = directory / "hold"
        file.write_text("")
        chosen = settings(transport="envoy", max_heap_megabytes=BOUND)
        application = f"{heap_holder.__name__}:application"
        door = envoy.make_door(chosen, installation, directory, application, bindable(chosen))
        environ = os.environ | process.environment(installation) | {heap_holder.FILE: str(file)}
        environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{environ['PYTHONPATH']}"
        command = process.command(installation, envoy.write(door), log_level="warning")
        server = subprocess.Popen(tied_to_this_process(command), env=environ)
        try:
            yield Running(asyncio.run(port_of(door.admin_socket)), door.admin_socket, file)
        finally:
            server.kill()
            server.wait()


async def port_of(socket: Path) -> int:
    async with Admin(socket) as admin, asyncio.timeout(PATIENCE_SECONDS):
        return await admin.listening()


def test_calls_are_refused_until_the_memory_is_free_again_and_the_one_in_progress_is_answered(
    running: Running,
) -> None:
    address = f"127.0.0.1:{running.port}"
    with http2.connected(address) as connection, http2.connected(address) as quiet:
        slow = connection.stream()
        connection.send(connection.begin(slow, "/slow", ended=True))
        assert connection.until(lambda: connection.settings_acked)
        assert called(quiet) == SERVED
        running.overload()

        # On open connections, and on new ones, which are still taken.
        assert called(connection) == called(quiet) == REFUSED
        with http2.connected(address) as another:
            assert called(another) == REFUSED
        with httpx.Client(base_url=f"http://{address}") as client:
            answer = client.get("/")
            assert (answer.status_code, answer.json()["code"]) == (503, int(UNAVAILABLE))
        assert slow not in connection.headers

        running.finish_slow()
        assert connection.until(lambda: connection.data.get(slow) == len(SERVED))
        running.recover()
        assert eventually(lambda: called(quiet) == SERVED)
        assert called(connection) == SERVED


def called(connection: http2.Connection) -> str | None:
    """Call, and return SERVED or the gRPC status of the refusal."""
    call = connection.call(b"")
    assert connection.until(lambda: connection.data.get(call) or connection.ended(call))
    return connection.headers[call].get("grpc-status", SERVED)
