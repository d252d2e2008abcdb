"""Thousands of watchers in one process: ``python -m tests.bench.watch_client ADDRESS TOKEN``.

It takes steps from standard input, a line of JSON each, and prints what it saw, a line of JSON each. The watchers speak
HTTP/2 by hand and read no more of an event than what it is: a gRPC library spends more on each message than the server
does.
"""

import asyncio
import json
import random
import struct
import sys
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from statistics import median
from typing import Any

import grpc

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.watch_pb2 import ResumeToken, WatchRequest, WatchResponse
from tests.bench import requests

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
WINDOW = 2**31 - 1
DATA, HEADERS, RESET, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
ACK, END_STREAM, END_HEADERS = 1, 1, 4
# The tag of the event in a WatchResponse.
CHANGES, CHECKPOINT = 0x1A, 0x22
PATIENCE_SECONDS = 60.0
# Watchers whose events are read whole.
SAMPLED = 50
RETRY_SECONDS = (1.0, 3.0)


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    return struct.pack(">I", len(payload))[1:] + bytes((kind, flags)) + struct.pack(">I", stream) + payload


def header(name: str, value: str) -> bytes:
    """Encode a header as a literal that is not indexed (RFC 7541 §6.2.2); only lengths over 126 take two bytes."""
    return b"\x00" + _text(name) + _text(value)


def _text(text: str) -> bytes:
    length = len(text)
    if length < 127:
        return bytes((length,)) + text.encode()
    rest, encoded = length - 127, bytearray((127,))
    while rest > 127:
        encoded.append(rest & 127 | 128)
        rest >>= 7
    return bytes((*encoded, rest)) + text.encode()


@dataclass(slots=True)
class Watcher:
    """One stream. ``changed_at`` is when each change set arrived, ``current_at`` the first checkpoint."""

    request: WatchRequest
    changed_at: list[float] = field(default_factory=list)
    current_at: float = 0.0
    refusals: int = 0
    lost: bool = False
    sampled: list[tuple[bytes, float]] | None = None
    last: bytes = b""
    unread: bytes = b""


class Connection(asyncio.Protocol):
    """An HTTP/2 connection with some streams."""

    def __init__(self, address: str, token: str, watchers: Iterable[Watcher]) -> None:
        self._watchers = {2 * number + 1: watcher for number, watcher in enumerate(watchers)}
        headers = {":method": "POST", ":scheme": "http", ":path": "/pointsman.v1.RouteService/Watch"}
        headers |= {":authority": address, "content-type": "application/grpc", "te": "trailers"}
        headers |= {"authorization": f"Bearer {token}"} if token else {}
        self._headers = b"".join(header(name, value) for name, value in headers.items())
        self._buffer = b""
        self._next = 2 * len(self._watchers) + 1
        self.transport: Any = None

    def connection_made(self, transport: Any) -> None:
        self.transport = transport
        settings = struct.pack(">HIHI", 4, WINDOW, 1, 0)
        parts = [
            PREFACE,
            frame(SETTINGS, 0, 0, settings),
            frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", WINDOW - 65535)),
        ]
        parts += [self._call(stream, watcher) for stream, watcher in self._watchers.items()]
        transport.write(b"".join(parts))

    def _call(self, stream: int, watcher: Watcher) -> bytes:
        body = watcher.request.SerializeToString()
        message = frame(DATA, END_STREAM, stream, struct.pack(">BI", 0, len(body)) + body)
        return frame(HEADERS, END_HEADERS, stream, self._headers) + message

    def _again(self, watcher: Watcher) -> None:
        """Come back, as a client does that was refused."""
        stream, self._next = self._next, self._next + 2
        self._watchers[stream] = watcher
        self.transport.write(self._call(stream, watcher))

    def data_received(self, data: bytes) -> None:
        now = time.time()
        data = self._buffer + data if self._buffer else data
        begin, end = 0, len(data)
        while end - begin >= 9:
            length = int.from_bytes(data[begin : begin + 3], "big")
            if end - begin - 9 < length:
                break
            kind, flags = data[begin + 3], data[begin + 4]
            if kind == DATA:
                stream = int.from_bytes(data[begin + 5 : begin + 9], "big")
                self._take(self._watchers[stream], data[begin + 9 : begin + 9 + length], now)
            elif kind != WINDOW_UPDATE:
                self._control(kind, flags, data[begin + 5 : begin + 9 + length])
            begin += 9 + length
        self._buffer = data[begin:]

    def _control(self, kind: int, flags: int, rest: bytes) -> None:
        if kind == SETTINGS and not flags & ACK:
            self.transport.write(frame(SETTINGS, ACK, 0, b""))
        elif kind == PING and not flags & ACK:
            self.transport.write(frame(PING, ACK, 0, rest[4:]))
        elif kind == RESET or (kind == HEADERS and flags & END_STREAM):
            watcher = self._watchers.pop(int.from_bytes(rest[:4], "big"), None)
            if watcher is None:
                return
            watcher.refusals += 1
            watcher.unread = b""
            asyncio.get_running_loop().call_later(random.uniform(*RETRY_SECONDS), self._again, watcher)

    def connection_lost(self, _error: Exception | None) -> None:
        for watcher in self._watchers.values():
            watcher.lost = True

    def _take(self, watcher: Watcher, data: bytes, now: float) -> None:
        data = watcher.unread + data if watcher.unread else data
        begin = 0
        while len(data) - begin >= 5:
            length = int.from_bytes(data[begin + 1 : begin + 5], "big")
            if len(data) - begin - 5 < length:
                break
            event = data[begin + 5 : begin + 5 + length]
            begin += 5 + length
            if event[0] == CHANGES:
                watcher.changed_at.append(now)
                if watcher.sampled is not None:
                    watcher.sampled.append((event, now))
            elif event[0] == CHECKPOINT:
                watcher.current_at = watcher.current_at or now
                watcher.last = event
        watcher.unread = data[begin:]


class Crowd:
    """Watchers over connections, and a writer."""

    def __init__(self, address: str, token: str) -> None:
        self.address, self.token = address, token
        self.watchers: list[Watcher] = []
        self._connections: list[Connection] = []
        self._channel = grpc.aio.insecure_channel(address)
        self._stub = RouteServiceStub(self._channel)

    async def open(self, watchers: list[Watcher], connections: int) -> dict[str, float]:
        """Open streams, and wait until each is current. Returns the seconds that took, and how many were refused."""
        begun = time.time()
        host, _, port = self.address.rpartition(":")
        loop = asyncio.get_running_loop()
        for number in range(connections):
            some = watchers[number::connections]
            if some:
                connection = Connection(self.address, self.token, some)
                self._connections.append(connection)
                await loop.create_connection(lambda connection=connection: connection, host, int(port))  # type: ignore[misc]
        self.watchers += watchers
        await until(lambda: all(watcher.current_at for watcher in watchers), watchers)
        took = max(watcher.current_at for watcher in watchers) - begun
        return {"seconds": took, "refusals": sum(watcher.refusals for watcher in watchers)}

    async def close(self) -> None:
        for connection in self._connections:
            connection.transport.close()
        self._connections.clear()
        await asyncio.sleep(0.5)

    async def write(self, key: RouteKey) -> float:
        """Change a route; returns the store's time of it, which is before the commit."""
        change = pb.UpdateRequest(key=key, url=f"{requests.URL}/{time.time_ns()}", allow_missing=True)
        answer = await self._stub.Update(change, metadata=(("authorization", f"Bearer {self.token}"),))
        return answer.route.update_time.ToNanoseconds() / 1e9  # type: ignore[no-any-return]


async def until(done: Any, watchers: list[Watcher]) -> None:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while not done():
        if time.monotonic() > give_up or any(watcher.lost for watcher in watchers):
            lost = sum(watcher.lost for watcher in watchers)
            current = sum(bool(watcher.current_at) for watcher in watchers)
            raise SystemExit(f"{lost} of {len(watchers)} streams are lost, {current} are current")
        await asyncio.sleep(0.01)


def percentile(values: list[float], share: float) -> float:
    return sorted(values)[min(len(values) - 1, int(len(values) * share))]


def key_of(tenant: str, number: int = 0) -> RouteKey:
    return RouteKey(tenant=tenant, service=f"s{number}", env="prod", version="v1")


async def one_change(crowd: Crowd, tenant: str, matching: list[Watcher], times: int) -> dict[str, float]:
    """Change one route, again and again; returns the median over the changes of the p99 over the watchers, in ms."""
    p99, worst = [], []
    for _ in range(times):
        for watcher in matching:
            watcher.changed_at.clear()
        made = await crowd.write(key_of(tenant))
        await until(lambda: all(watcher.changed_at for watcher in matching), matching)
        delays = [(watcher.changed_at[0] - made) * 1000 for watcher in matching]
        p99.append(percentile(delays, 0.99))
        worst.append(max(delays))
        await asyncio.sleep(0.5)
    return {"p99": median(p99), "worst": max(worst)}


async def steady(crowd: Crowd, tenants: list[str], rate: int, seconds: float) -> dict[str, float]:
    """Change routes of some tenants at a steady rate; some watchers are looked at in detail."""
    for watcher in crowd.watchers[:: max(1, len(crowd.watchers) // SAMPLED)]:
        watcher.sampled = []
    begun, writes = time.perf_counter(), set()
    for number in range(int(rate * seconds)):
        await asyncio.sleep(max(0.0, begun + number / rate - time.perf_counter()))
        key = key_of(tenants[number % len(tenants)], number % 50)
        writes.add(asyncio.create_task(crowd.write(key)))
    await asyncio.gather(*writes)
    took = time.perf_counter() - begun
    await asyncio.sleep(1.0)
    delays = [
        (at - change.occur_time.ToNanoseconds() / 1e9) * 1000
        for watcher in crowd.watchers
        for event, at in watcher.sampled or ()
        for change in WatchResponse.FromString(event).changes.changes
    ]
    return {"p50": percentile(delays, 0.5), "p99": percentile(delays, 0.99), "rate": rate * seconds / took}


def watch(tenant: str, resume: bytes = b"") -> Watcher:
    request = WatchRequest(tenant=tenant)
    if resume:
        token = WatchResponse.FromString(resume).checkpoint.as_of
        request.resume.CopyFrom(ResumeToken(epoch=token.epoch, revision=token.revision))
    return Watcher(request)


async def reconnect(crowd: Crowd, connections: int) -> dict[str, float]:
    """Close every connection, change a route, and resume every watcher at once."""
    await until(lambda: all(watcher.last for watcher in crowd.watchers), crowd.watchers)
    again = [watch(watcher.request.tenant, watcher.last) for watcher in crowd.watchers]
    crowd.watchers = []
    await crowd.close()
    await crowd.write(key_of(again[0].request.tenant))
    return await crowd.open(again, connections)


async def take(crowd: Crowd, step: dict[str, Any]) -> dict[str, float]:
    """Take one step; its ``do`` says which."""
    match step.pop("do"):
        case "open":
            for tenant in step["watchers"]:
                await crowd.write(key_of(tenant))
            watchers = [watch(tenant) for tenant, count in step["watchers"].items() for _ in range(count)]
            return await crowd.open(watchers, step["connections"])
        case "change":
            matching = [watcher for watcher in crowd.watchers if watcher.request.tenant == step["tenant"]]
            return await one_change(crowd, step["tenant"], matching, step["times"])
        case "steady":
            return await steady(crowd, **step)
        case "reconnect":
            return await reconnect(crowd, **step)
    raise ValueError(step)


async def main(address: str, token: str) -> None:
    """Take steps until standard input ends."""
    crowd, loop = Crowd(address, token), asyncio.get_running_loop()
    while line := await loop.run_in_executor(None, sys.stdin.readline):
        print(json.dumps(await take(crowd, json.loads(line))), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2]))
