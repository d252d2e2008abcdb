"""The abusers: ``python -m tests.bench.abusers rapid-reset 127.0.0.1:50051 TOKEN`` abuses a server until SIGTERM.

As fast as it can, or at the rate that its text says. In the end it prints one line of JSON: how much it did, and how
often it was disconnected.
"""

import base64
import itertools
import json
import os
import random
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from types import MappingProxyType

from hpack import Encoder

from pointsman.v1 import route_service_pb2 as pb
from tests.bench import requests
from tests.support import http2, issuer
from tests.support.http2 import Connection

NEIGHBOUR = "busy-neighbour"
BATCH = "/pointsman.v1.RouteService/BatchResolve"
BURST = 100
MEGABYTE = 1 << 20
SLOW_CONNECTIONS, SLOW_CALLS, SLOW_KEYS = 20, 50, 200
TOKENS_PER_SECOND = 1000
HELD_CONNECTIONS = 1000
LATEST_SECONDS = 0.005


@dataclass
class Abuser:
    """Who abuses whom, and what came of it."""

    address: str
    token: str = ""
    done: int = 0
    disconnected: int = 0
    stopped: bool = field(default=False)

    def connections(self, settings: Mapping[int, int] = MappingProxyType({})) -> Iterator[Connection]:
        """Connect again and again, each time when the server has closed the one before."""
        while not self.stopped:
            with suppress(OSError), http2.connected(self.address, settings) as connection:
                connection.until(lambda: connection.settings_acked, patience=5)
                yield connection
                self.disconnected += connection.gone

    def begin(self, connection: Connection, stream: int, path: str = http2.RESOLVE, **more: str) -> bytes:
        """Encode the headers of a call by somebody who may call."""
        return connection.begin(stream, path, **{"authorization": f"Bearer {self.token}"} | more)

    def drain(self, connection: Connection, seconds: float = 0.0005) -> bool:
        """Read for a while; says whether to go on."""
        connection.until(lambda: connection.gone or self.stopped, patience=seconds)
        return not connection.gone and not self.stopped


def busy_neighbour(abuser: Abuser) -> None:
    """Keep a core busy with what the others do, frames and sockets, and send nothing to the server."""
    near, far = socket.socketpair()
    with near, far:
        encoder = Encoder()
        while not abuser.stopped:
            for _ in range(BURST):
                near.sendall(bytes(encoder.encode(list(http2.CALL.items()))))
                far.recv(1 << 16)
            abuser.done += BURST


def rapid_reset(abuser: Abuser) -> None:
    """Begin calls and cancel them at once, whole ones, so that Python may see them."""
    body = http2.message(requests.resolves()[0].SerializeToString())
    for connection in abuser.connections():
        while abuser.drain(connection):
            burst = b""
            for _ in range(BURST):
                stream = connection.stream()
                burst += abuser.begin(connection, stream) + http2.data(stream, body, ended=True) + http2.reset(stream)
            if connection.send(burst):
                abuser.done += BURST


def ping_flood(abuser: Abuser) -> None:
    """Ping as fast as the server answers."""
    burst = http2.ping() * BURST
    for connection in abuser.connections():
        while abuser.drain(connection):
            if connection.send(burst):
                abuser.done += BURST


def slow_readers(abuser: Abuser) -> None:
    """Ask for large answers on many connections, and read none: 20 connections, 50 calls each, 200 keys each."""
    keys = [request.key for request in requests.resolves()[:SLOW_KEYS]]
    body = http2.message(pb.BatchResolveRequest(keys=keys).SerializeToString())
    with ExitStack() as stack:
        held: dict[int, Connection] = {}
        for number in itertools.cycle(range(SLOW_CONNECTIONS)):
            if abuser.stopped:
                return
            connection = held.get(number)
            if connection is None or connection.gone:
                abuser.disconnected += connection is not None
                connection = held[number] = stack.enter_context(http2.connected(abuser.address, {4: 0}))
                _ask_without_reading(abuser, connection, body)
            abuser.drain(connection)
            time.sleep(0.01)


def _ask_without_reading(abuser: Abuser, connection: Connection, body: bytes) -> None:
    connection.until(lambda: connection.settings_acked, patience=5)
    for _ in range(SLOW_CALLS):
        if connection.gone or abuser.stopped:
            return
        stream = connection.stream()
        connection.send(abuser.begin(connection, stream, BATCH))
        abuser.done += connection.upload(stream, body) == len(body)


def oversized_bodies(abuser: Abuser) -> None:
    """Send bodies of 8 MB, one after another."""
    body = http2.message(b"\0" * (8 * MEGABYTE))
    for connection in abuser.connections():
        while abuser.drain(connection):
            stream = connection.stream()
            connection.send(abuser.begin(connection, stream))
            connection.upload(stream, body)
            connection.until(lambda: connection.ended(stream) or abuser.stopped, patience=5)  # noqa: B023 - called now
            abuser.done += 1


def bombs(abuser: Abuser) -> None:
    """Send 16 MB of zeros as a few kilobytes of gzip, one after another."""
    import zlib

    squeeze = zlib.compressobj(9, zlib.DEFLATED, 31)
    packed = squeeze.compress(b"\0" * (16 * MEGABYTE)) + squeeze.flush()
    for connection in abuser.connections():
        while abuser.drain(connection):
            stream = connection.stream()
            connection.send(abuser.begin(connection, stream, grpc_encoding="gzip"))
            connection.upload(stream, http2.message(packed, compressed=True))
            connection.until(lambda: connection.ended(stream) or abuser.stopped, patience=5)  # noqa: B023 - called now
            abuser.done += 1


def bad_tokens(abuser: Abuser) -> None:
    """Call 1,000 times a second, each time with another unsigned bearer token.

    What it was kept from sending in time it never sends: that would be another abuse, of bursts.
    """
    body = http2.message(requests.resolves()[0].SerializeToString())
    tokens = [_token() for _ in range(TOKENS_PER_SECOND)]
    due = time.monotonic()
    for connection in abuser.connections():
        while abuser.drain(connection, 0.001):
            now = time.monotonic()
            due = max(due, now - LATEST_SECONDS)
            while due < now:
                due += 1 / TOKENS_PER_SECOND
                stream = connection.stream()
                head = abuser.begin(connection, stream, authorization=f"Bearer {tokens[abuser.done % len(tokens)]}")
                connection.send(head + http2.data(stream, body, ended=True))
                abuser.done += 1


def connection_storm(abuser: Abuser) -> None:
    """Connect, greet and hang up, as fast as the server takes connections; and hold 1,000 that say nothing."""
    host, _, port = abuser.address.rpartition(":")
    address = (host, int(port))
    with ExitStack() as stack:
        held: deque[socket.socket] = deque()
        while not abuser.stopped:
            with suppress(OSError), socket.create_connection(address, 5) as greeting:
                greeting.sendall(http2.PREFACE + http2.frame(http2.SettingsFrame(0)))
                abuser.done += 1
            if len(held) < HELD_CONNECTIONS:
                with suppress(OSError):
                    held.append(stack.enter_context(socket.create_connection(address, 5)))


def _token() -> str:
    def part(content: bytes) -> str:
        return base64.urlsafe_b64encode(content).decode().rstrip("=")

    head = json.dumps({"alg": "RS256", "kid": "k1", "typ": "JWT"}).encode()
    claims = json.dumps(
        {"sub": str(random.random()), "iss": issuer.ISSUER, "aud": issuer.AUDIENCE, "exp": 2**31}
    ).encode()
    return f"{part(head)}.{part(claims)}.{part(os.urandom(256))}"


ABUSES: dict[str, Callable[[Abuser], None]] = {
    "rapid-reset": rapid_reset,
    "ping-flood": ping_flood,
    "slow-readers": slow_readers,
    "oversized-bodies": oversized_bodies,
    "compressed-bombs": bombs,
    "bad-tokens": bad_tokens,
    "connection-storm": connection_storm,
}


def main(name: str, address: str, token: str) -> None:
    """Abuse until SIGTERM."""
    abuser = Abuser(address, token)

    def stop(_number: int, _frame: object) -> None:
        abuser.stopped = True

    signal.signal(signal.SIGTERM, stop)
    with suppress(OSError):
        (busy_neighbour if name == NEIGHBOUR else ABUSES[name])(abuser)
    print(json.dumps({"done": abuser.done, "disconnected": abuser.disconnected}))


if __name__ == "__main__":
    main(*sys.argv[1:4])
