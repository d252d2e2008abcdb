"""Thousands of xDS clients in one process: ``python -m tests.bench.xds_client XDS_ADDRESS API_ADDRESS TOKEN``.

It takes steps from standard input, a line of JSON each, and prints what it saw, a line of JSON each. Each client is one
stream on a connection of its own, as those of gRPC are: it subscribes to Listeners, then RouteConfigurations, Clusters
and endpoints, and acknowledges every response. The clients speak HTTP/2 by hand and read no more of a response than
its version, its nonce and how many resources it has: a gRPC library spends more on each message than the server does.
"""

import asyncio
import json
import struct
import sys
import time
from collections.abc import Sequence
from typing import Any

import grpc

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.bench.protobuf import field
from tests.bench.watch_client import (
    ACK,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PING,
    PREFACE,
    RESET,
    SETTINGS,
    WINDOW,
    WINDOW_UPDATE,
    frame,
    header,
    percentile,
)

PATH = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources"
PREFIX = "type.googleapis.com/envoy.config."
TYPES = tuple(
    f"{PREFIX}{name}"
    for name in (
        "listener.v3.Listener",
        "route.v3.RouteConfiguration",
        "cluster.v3.Cluster",
        "endpoint.v3.ClusterLoadAssignment",
    )
)
ENDPOINTS = TYPES[-1]
# Fields of a DiscoveryRequest and of a DiscoveryResponse.
VERSION, NODE, NAMES, TYPE_OF_REQUEST, NONCE_OF_REQUEST = 1, 2, 3, 4, 5
RESOURCES, TYPE, NONCE = 2, 4, 5
TENANT = "fleet"
SHARED = "shared"
PATIENCE_SECONDS = 60.0
# Clients that connect at the same time.
CONNECTING = 200
WRITERS = 50


def fields(message: bytes) -> list[tuple[int, bytes]]:
    """Return the length-delimited fields of a message, which has no others."""
    found, place, end = [], 0, len(message)
    while place < end:
        number = message[place] >> 3
        place += 1
        length = shift = 0
        while True:
            byte = message[place]
            place += 1
            length |= (byte & 127) << shift
            if byte < 128:
                break
            shift += 7
        found.append((number, message[place : place + length]))
        place += length
    return found


class Client(asyncio.Protocol):
    """One client on a connection. ``changed_at`` is when each response with endpoints arrived."""

    def __init__(self, number: int, names: Sequence[str], headers: bytes) -> None:
        self.names = frozenset(names)
        self.ready_at = 0.0
        self.changed_at: list[float] = []
        self.lost = ""
        self._number = number
        self._wanted = b"".join(field(NAMES, name.encode()) for name in names)
        self._headers = headers
        self._missing = dict.fromkeys(TYPES, len(names))
        self._buffer = b""
        self._unread = b""
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        node = field(NODE, field(1, f"client-{self._number}".encode()) + field(6, b"gRPC Python"))
        transport.write(
            PREFACE
            + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, WINDOW))
            + frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - 65535))
            + frame(HEADERS, END_HEADERS, 1, self._headers)
            + self._request(TYPES[0], node)
        )

    def _request(self, kind: str, more: bytes = b"") -> bytes:
        body = more + self._wanted + field(TYPE_OF_REQUEST, kind.encode())
        return frame(DATA, 0, 1, struct.pack(">BI", 0, len(body)) + body)

    def data_received(self, data: bytes) -> None:
        now = time.time()
        data = self._buffer + data if self._buffer else data
        begin, end = 0, len(data)
        while end - begin >= 9:
            length = int.from_bytes(data[begin : begin + 3], "big")
            if end - begin - 9 < length:
                break
            kind, flags, payload = data[begin + 3], data[begin + 4], data[begin + 9 : begin + 9 + length]
            begin += 9 + length
            if kind == DATA:
                self._take(payload, now)
            elif kind in (SETTINGS, PING) and not flags & ACK:
                self.transport.write(frame(kind, ACK, 0, payload if kind == PING else b""))
            elif kind == RESET or (kind == HEADERS and flags & END_STREAM):
                self.lost = self.lost or f"the stream ended: {payload!r}"
        self._buffer = data[begin:]

    def connection_lost(self, error: Exception | None) -> None:
        self.lost = self.lost or f"the connection ended: {error}"

    def _take(self, data: bytes, now: float) -> None:
        data = self._unread + data if self._unread else data
        begin = 0
        while len(data) - begin >= 5:
            length = int.from_bytes(data[begin + 1 : begin + 5], "big")
            if len(data) - begin - 5 < length:
                break
            self._answer(data[begin + 5 : begin + 5 + length], now)
            begin += 5 + length
        self._unread = data[begin:]

    def _answer(self, response: bytes, now: float) -> None:
        found = fields(response)
        of = dict(found)
        name = of[TYPE].decode()
        out = self._request(name, field(VERSION, of.get(VERSION, b"")) + field(NONCE_OF_REQUEST, of[NONCE]))
        if missing := self._missing[name]:
            self._missing[name] = max(0, missing - sum(number == RESOURCES for number, _ in found))
            if not self._missing[name]:
                out += self._next(name, now)
        elif name == ENDPOINTS:
            self.changed_at.append(now)
        self.transport.write(out)

    def _next(self, name: str, now: float) -> bytes:
        """Ask for the next type; after the last one, the client has everything."""
        if name != ENDPOINTS:
            return self._request(TYPES[TYPES.index(name) + 1])
        self.ready_at = now
        return b""


class Crowd:
    """Clients, and a writer."""

    def __init__(self, xds: str, api: str, token: str) -> None:
        self._xds, self._token = xds, token
        self._stub = RouteServiceStub(grpc.aio.insecure_channel(api))
        self.clients: list[Client] = []
        headers = {":method": "POST", ":scheme": "http", ":path": PATH}
        headers |= {":authority": xds, "content-type": "application/grpc", "te": "trailers"}
        headers |= {"authorization": f"Bearer {token}"} if token else {}
        self._headers = b"".join(header(name, value) for name, value in headers.items())

    async def make(self, routes: int) -> dict[str, float]:
        """Make the routes that clients ask for."""
        turns = asyncio.Semaphore(WRITERS)

        async def one(service: str) -> None:
            async with turns:
                await self.write(service)

        await asyncio.gather(*(one(service) for service in (SHARED, *(f"s{number}" for number in range(routes)))))
        return {"routes": routes + 1}

    async def open(self, clients: int, names: int, routes: int) -> dict[str, float]:
        """Open streams, and wait until each has everything. Each has one name that all have, and some of its own."""
        own = names - 1
        made = [
            Client(
                number,
                [name_of(SHARED), *(name_of(f"s{(number * own + each) % routes}") for each in range(own))],
                self._headers,
            )
            for number in range(len(self.clients), len(self.clients) + clients)
        ]
        self.clients += made
        begun = time.time()
        host, _, port = self._xds.rpartition(":")
        turns = asyncio.Semaphore(CONNECTING)

        async def connect(client: Client) -> None:
            async with turns:
                await asyncio.get_running_loop().create_connection(lambda: client, host, int(port))

        await asyncio.gather(*map(connect, made))
        await self.until(lambda: all(client.ready_at for client in made))
        return {"seconds": max(client.ready_at for client in made) - begun}

    async def change(self, service: str, times: int, routes: int = 1) -> dict[str, float]:
        """Change routes, one after the other; says how late, in ms, all subscribers had a change."""
        delays, last = [], []
        for number in range(times):
            chosen = service if service == SHARED else f"s{number * 7 % routes}"
            name = name_of(chosen)
            having = [client for client in self.clients if name in client.names]
            for client in having:
                client.changed_at.clear()
            made = await self.write(chosen)
            await self.until(lambda having=having: all(client.changed_at for client in having))
            late = [(client.changed_at[0] - made) * 1000 for client in having]
            delays += late
            last.append(max(late))
            await asyncio.sleep(0.2)
        return {"p50": percentile(delays, 0.5), "p99": percentile(delays, 0.99), "last": percentile(last, 0.5)}

    async def write(self, service: str) -> float:
        """Change a route; returns the store's time of it, which is before the commit."""
        key = RouteKey(tenant=TENANT, service=service, env="prod", version="v1")
        port = time.time_ns() // 1000 % 60_000 + 1
        change = pb.UpdateRequest(key=key, url=f"http://10.0.0.{port % 250 + 1}:{port}", allow_missing=True)
        answer = await self._stub.Update(change, metadata=(("authorization", f"Bearer {self._token}"),))
        return answer.route.update_time.ToNanoseconds() / 1e9  # type: ignore[no-any-return]

    async def until(self, done: Any) -> None:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not done():
            lost = [client.lost for client in self.clients if client.lost]
            if time.monotonic() > give_up or lost:
                ready = sum(bool(client.ready_at) for client in self.clients)
                raise SystemExit(f"{len(lost)} of {len(self.clients)} are lost {lost[:1]}, {ready} are ready")
            await asyncio.sleep(0.005)


def name_of(service: str) -> str:
    return f"v1~prod~{service}~{TENANT}"


async def main(xds: str, api: str, token: str) -> None:
    """Take steps until standard input ends."""
    crowd, loop = Crowd(xds, api, token), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        step = json.loads(line)
        begun, cpu = time.perf_counter(), time.process_time()
        seen = await getattr(crowd, step.pop("do"))(**step)
        busy = (time.process_time() - cpu) / (time.perf_counter() - begun)
        print(json.dumps({**seen, "busy": busy}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
