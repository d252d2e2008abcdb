"""A proxy before PostgreSQL that refuses startup parameters as PgBouncer does, in its words and with its SQLSTATE."""

import socket
import struct
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

# What PgBouncer 1.18 takes: its own two, and the parameters that it tracks.
TRACKED = {"application_name", "client_encoding", "datestyle", "timezone", "standard_conforming_strings"}
KNOWN = {"user", "database"} | TRACKED
NEGOTIATIONS = {80877103, 80877104}  # for TLS and for GSSAPI
VERSION_3 = 3
CHUNK = 65536


@contextmanager
def pooler(server: int) -> Iterator[int]:
    """Run the proxy before the PostgreSQL at the port ``server``, and give its own port."""
    with proxy(server) as running:
        yield running.port


@contextmanager
def proxy(server: int) -> Iterator["Proxy"]:
    """Run the proxy, and give it: its ``server`` may become another one, for connections that are made later."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        running = Proxy(listener, server)
        try:
            yield running
        finally:
            running.close()


class Proxy:
    """``port``: where it listens. ``server``: the port of PostgreSQL, which later connections are led to."""

    def __init__(self, listener: socket.socket, server: int) -> None:
        self.server = server
        self.port = int(listener.getsockname()[1])
        self._listener = listener
        self._sockets: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept)]
        self._threads[0].start()

    def close(self) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        for each in self._sockets:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for each in self._sockets:
            each.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._sockets.append(client)
            self._start(self._serve, client)

    def _start(self, work: Callable[..., None], *arguments: socket.socket) -> None:
        thread = threading.Thread(target=work, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _serve(self, client: socket.socket) -> None:
        with suppress(OSError):
            startup = _read_startup(client)
            if refused := _refused(startup):
                client.sendall(_error(f"unsupported startup parameter: {refused}"))
                client.shutdown(socket.SHUT_RDWR)
                return
            server = socket.create_connection(("127.0.0.1", self.server))
            self._sockets.append(server)
            server.sendall(startup)
            self._start(_pump, server, client)
            _pump(client, server)


def _read_startup(client: socket.socket) -> bytes:
    """Read the first message that is no question whether TLS or GSSAPI is there: it is not."""
    while True:
        length = client.recv(4, socket.MSG_WAITALL)
        if len(length) < 4:
            raise OSError("the client left")
        body = client.recv(struct.unpack("!I", length)[0] - 4, socket.MSG_WAITALL)
        if struct.unpack("!I", body[:4])[0] not in NEGOTIATIONS:
            return length + body
        client.sendall(b"N")


def _refused(startup: bytes) -> str:
    (major,) = struct.unpack("!H", startup[4:6])
    names = startup[8:].split(b"\0")[0::2] if major == VERSION_3 else []
    return next((name.decode() for name in names if name and name.decode().lower() not in KNOWN), "")


def _error(text: str) -> bytes:
    fields = b"SFATAL\0C08P01\0M" + text.encode() + b"\0\0"
    return b"E" + struct.pack("!I", len(fields) + 4) + fields


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while data := source.recv(CHUNK):
            sink.sendall(data)
    with suppress(OSError):
        sink.shutdown(socket.SHUT_WR)
