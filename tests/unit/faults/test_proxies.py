"""A proxy before several ports: connections go round, past those that nobody listens on."""

import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import pytest

from tests.faults.proxies import Proxies
from tests.support.processes import free_port


@pytest.fixture
def proxies() -> Iterator[Proxies]:
    running = Proxies()
    yield running
    running.close()


class Named:
    """A server that says its name to all who connect."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._socket = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()
        self._thread.join(10)

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._socket.accept()
            except OSError:
                return
            with connection:
                connection.sendall(self._name.encode())


def who(port: int) -> str:
    with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
        return connection.recv(100).decode()


def test_connections_go_round_past_those_that_are_away(proxies: Proxies) -> None:
    with closing(Named("one")) as one:
        with closing(Named("two")) as two:
            port = proxies.open("both", one.port, free_port(), two.port)
            assert {who(port) for _ in range(4)} == {"one", "two"}
        assert {who(port) for _ in range(4)} == {"one"}
