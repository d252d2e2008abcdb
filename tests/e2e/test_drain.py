"""What a client with an open HTTP/2 connection sees of a stop."""

import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection

from pointsman_server.adapters.kafka.group_consumer import THREADS
from tests.support.processes import free_port, serve, server_process

ENVIRON = {
    "DATABASE_URL": "postgresql://u@127.0.0.1:1/d",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "POINTSMAN_DATABASE_TIMEOUT_SECONDS": "1",
    "POINTSMAN_ROLES": "api",
    "POINTSMAN_DRAIN_SECONDS": "30",
}
HEADERS = {
    ":method": "POST",
    ":scheme": "http",
    ":path": "/grpc.health.v1.Health/Check",
    ":authority": "localhost",
    "content-type": "application/grpc",
    "te": "trailers",
}


DATA, HEADERS_FRAME, GOAWAY = 0, 1, 7
END_STREAM = 1


class Connection:
    """One connection, on which health is asked for. It reads frames by hand: h2 takes none after GOAWAY."""

    def __init__(self, port: int) -> None:
        self._wire = socket.create_connection(("127.0.0.1", port), timeout=30)
        self._frames = self._wire.makefile("rb")
        self._h2 = H2Connection(H2Configuration(client_side=True))
        self._h2.initiate_connection()

    def ask(self) -> tuple[bool, bool]:
        """Call. Returns whether the call was answered, and whether GOAWAY came before or with the answer."""
        stream = self._begin()
        went_away = False
        while len(head := self._frames.read(9)) == 9:
            self._frames.read(int.from_bytes(head[:3]))
            kind, flags, of = head[3], head[4], int.from_bytes(head[5:])
            went_away = went_away or kind == GOAWAY
            if of == stream and kind in (DATA, HEADERS_FRAME) and flags & END_STREAM:
                return True, went_away
        return False, went_away

    def ask_until_goaway(self, at_once: int) -> tuple[int, set[int]]:
        """Keep calls open until GOAWAY, as a client does. Returns how many were answered, and those that were not."""
        waiting = {self._begin() for _ in range(at_once)}
        answered, went_away = 0, False
        while (waiting or not went_away) and len(head := self._frames.read(9)) == 9:
            self._frames.read(int.from_bytes(head[:3]))
            kind, flags, of = head[3], head[4], int.from_bytes(head[5:])
            went_away = went_away or kind == GOAWAY
            if kind in (DATA, HEADERS_FRAME) and flags & END_STREAM:
                waiting.discard(of)
                answered += 1
                if not went_away:
                    waiting.add(self._begin())
        return answered, waiting

    def _begin(self) -> int:
        stream = self._h2.get_next_available_stream_id()
        self._h2.send_headers(stream, list(HEADERS.items()))
        self._h2.send_data(stream, bytes(5), end_stream=True)
        self._wire.sendall(self._h2.data_to_send())
        # The answer is read by hand.
        self._h2.reset_stream(stream)
        self._h2.clear_outbound_data_buffer()
        return stream

    def close(self) -> None:
        self._frames.close()
        self._wire.close()


@pytest.mark.parametrize("name", [signal.SIGTERM, signal.SIGINT])
def test_an_open_connection_gets_goaway_before_any_call_on_it_is_lost(name: signal.Signals) -> None:
    with serve("--transport", "envoy", **ENVIRON, POINTSMAN_LAME_DUCK_SECONDS="1") as (process, address, _http):
        connection = Connection(int(address.rpartition(":")[2]))
        try:
            assert connection.ask() == (True, False)
            process.process.send_signal(name)
            process.wait_for_log("draining")

            outcomes = [connection.ask()]
            while not outcomes[-1][1] and outcomes[-1][0]:
                outcomes.append(connection.ask())

            assert outcomes[-1][1], "the connection ended without GOAWAY"
            assert all(answered for answered, _ in outcomes[:-1])
        finally:
            connection.close()
        assert process.process.wait(30) == 0


def test_a_call_on_its_way_when_the_server_ends_is_answered() -> None:
    """Cancelled by grpcio, it would come to its client as CANCELLED, which is not retried."""
    with serve("--transport", "grpcio", **ENVIRON) as (process, address, _http), ThreadPoolExecutor(1) as pool:
        connection = Connection(int(address.rpartition(":")[2]))
        try:
            assert connection.ask() == (True, False)
            asking = pool.submit(connection.ask_until_goaway, 50)
            process.process.send_signal(signal.SIGTERM)
            answered, lost = asking.result(60)
        finally:
            connection.close()
        assert answered
        assert lost == set()
        assert process.process.wait(30) == 0


def test_a_second_signal_changes_nothing() -> None:
    with serve("--transport", "envoy", **ENVIRON, POINTSMAN_LAME_DUCK_SECONDS="1") as (process, _, _http):
        process.process.send_signal(signal.SIGTERM)
        process.wait_for_log("draining")
        process.process.send_signal(signal.SIGTERM)

        assert process.process.wait(30) == 0


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_a_thread_that_librdkafka_never_gives_back_does_not_keep_the_process(transport: str, tmp_path: Path) -> None:
    begun = tmp_path / "begun"
    # Each interpreter runs it at its start: also the one inside of Envoy.
    code = f"""
import os, sys, threading
if not hasattr(sys, "argv") or sys.argv[0] != "-c":
    threading.Thread(target=threading.Event().wait, name="{THREADS}stuck").start()
    open({str(begun)!r}, "a").write(f"{{os.getpid()}} ")
"""
    (tmp_path / "sitecustomize.py").write_text(code)
    environ = ENVIRON | {"PYTHONPATH": str(tmp_path)}
    kafka = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    with serve("--transport", transport, **(environ | kafka)) as (process, _, _http):
        interpreters = 2 if transport == "envoy" else 1
        assert begun.read_text().split() == [str(process.process.pid)] * interpreters
        told = time.monotonic()

        assert process.stop() == 0
        # A second for the thread, and what the rest of a stop takes; for calls there are 30 seconds.
        assert time.monotonic() - told < 20


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_workers_end_with_a_supervisor_that_is_killed(transport: str) -> None:
    ports = {"POINTSMAN_LISTEN": f"127.0.0.1:{free_port()}", "POINTSMAN_HTTP_LISTEN": f"127.0.0.1:{free_port()}"}
    with server_process("serve", "--workers", "2", "--transport", transport, **ENVIRON, **ports) as process:
        process.wait_for_log("serving", times=2)
        workers = psutil.Process(process.process.pid).children()
        assert len(workers) == 2

        process.stop(signal.SIGKILL)

        assert psutil.wait_procs(workers, timeout=30)[1] == []
