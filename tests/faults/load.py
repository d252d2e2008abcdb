"""The load: clients on raw stubs, which write down what they saw.

Readers stick to one server, or go round; of those that go round half send back what they saw (``min_revision``).
Writers write with a request_id, retry the same one until they know, and read what they wrote on any server.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.faults.history import UNANSWERED, Call, History, Read, Write
from tests.faults.rig import Server

KEYS = 200
BATCH = 20
READ_SECONDS = 0.5
WRITE_SECONDS = 2.0
READ_ATTEMPTS = 4
WRITE_ATTEMPTS = 12
SHUN_SECONDS = 2.0
PROMPT_SECONDS = 2.0
ZIPF = 1.1
CHANNEL = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 300),
    ("grpc.enable_retries", 0),
)
REFUSED = frozenset(
    {
        grpc.StatusCode.NOT_FOUND,
        grpc.StatusCode.ALREADY_EXISTS,
        grpc.StatusCode.ABORTED,
        grpc.StatusCode.INVALID_ARGUMENT,
    }
)
# kind → how often, of a hundred
WRITES = {"update": 55, "create": 12, "activate": 13, "deactivate": 10, "delete": 10}


def name(number: int) -> str:
    """Name key ``number``: four versions a service."""
    return f"faults/s{number // 4}/prod/v{number % 4}"


def message(key: str) -> route_pb2.RouteKey:
    """Encode a key."""
    tenant, service, env, version = key.split("/")
    return route_pb2.RouteKey(tenant=tenant, service=service, env=env, version=version)


@dataclass(slots=True)
class Target:
    """A server, as the clients see it; ``shunned`` until then by those that may choose."""

    server: Server
    stub: Any
    channel: grpc.aio.Channel
    shunned: float = 0.0


class Load:
    """All clients. ``rate`` is calls a second, all together; ``stop`` ends them after the call that is under way."""

    def __init__(self, servers: Sequence[Server], seed: int, rate: float, readers: int = 24, writers: int = 6) -> None:
        self.history = History()
        self._seed = seed
        self._readers, self._writers = readers, writers
        self._pause = readers / rate
        self._write_pause = 0.25
        self._servers = servers
        self._targets: list[Target] = []
        self._numbers = itertools.count(1)
        self._ended = False
        self._tasks: list[asyncio.Task[None]] = []
        ranks = random.Random(seed).sample(range(KEYS), KEYS)
        self._names = [name(number) for number in ranks]
        self._weights = list(itertools.accumulate(1 / rank**ZIPF for rank in range(1, KEYS + 1)))

    async def start(self) -> None:
        """Connect, create the routes, then let everybody go."""
        for server in self._servers:
            channel = grpc.aio.insecure_channel(server.address, options=CHANNEL)
            self._targets.append(Target(server, RouteServiceStub(channel), channel))
        makers = [Client(self, session) for session in range(1, 9)]
        for group in (self._names[place::8] for place in range(8)):
            client = makers.pop()
            self._tasks.append(asyncio.create_task(client.create_all(group)))
        await asyncio.gather(*self._tasks)
        self._tasks = [asyncio.create_task(self._client(number).run_reader()) for number in range(self._readers)]
        numbers = range(self._readers, self._readers + self._writers)
        self._tasks += [asyncio.create_task(self._client(number).run_writer()) for number in numbers]

    def _client(self, number: int) -> "Client":
        sticky = number % 3 == 0
        return Client(self, 100 + number, home=number // 3 % 3 if sticky else None, token=number % 3 == 1)

    async def stop(self) -> None:
        """Let every call end, then disconnect."""
        self._ended = True
        results = await asyncio.gather(*self._tasks, return_exceptions=True)
        await asyncio.gather(*(target.channel.close() for target in self._targets))
        for result in results:
            if isinstance(result, BaseException):
                raise result

    def key(self, dice: random.Random) -> str:
        """Draw a key, by Zipf."""
        return dice.choices(self._names, cum_weights=self._weights)[0]

    def choose(self, home: int | None, dice: random.Random, avoid: Target | None = None) -> Target:
        """Choose a server: home, or any that answered lately, and not the one that just failed."""
        now = time.monotonic()
        if home is not None and avoid is None:
            return self._targets[home]
        good = [each for each in self._targets if each is not avoid and each.shunned < now]
        return dice.choice(good or [each for each in self._targets if each is not avoid])


class Client:
    """One client: one call after the other. ``token`` sends back, for every key, the highest revision seen."""

    def __init__(self, load: Load, session: int, home: int | None = None, token: bool = False) -> None:
        self._load, self._session, self._home, self._token = load, session, home, token
        self._dice = random.Random(f"{load._seed}-{session}")
        self._seen: dict[str, int] = {}
        self._history = load.history

    async def create_all(self, keys: Sequence[str]) -> None:
        """Create the routes to begin with."""
        for key in keys:
            await self._write("create", key)

    async def run_reader(self) -> None:
        """Read until the load ends: mostly one key, sometimes many."""
        await asyncio.sleep(self._dice.random() * self._load._pause)
        while not self._load._ended:
            due = time.monotonic() + self._load._pause
            if not self._token and self._dice.random() < 0.12:
                await self._read_many()
            else:
                await self._read(self._load.key(self._dice))
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def run_writer(self) -> None:
        """Write, then read it, until the load ends."""
        kinds, weights = list(WRITES), list(WRITES.values())
        while not self._load._ended:
            due = time.monotonic() + self._load._write_pause * (0.5 + self._dice.random())
            key = self._load.key(self._dice) if self._dice.random() < 0.6 else self._dice.choice(self._load._names)
            await self._write(self._dice.choices(kinds, weights)[0], key)
            await self._read(key)
            await asyncio.sleep(max(0.0, due - time.monotonic()))

    async def _read(self, key: str) -> None:
        floor = self._seen.get(key, 0) if self._token else 0
        request = pb.ResolveRequest(key=message(key), min_revision=floor)

        async def attempt(target: Target) -> None:
            life, call = target.server.life, time.monotonic()
            try:
                reply = await target.stub.Resolve(request, timeout=READ_SECONDS)
            except grpc.aio.AioRpcError as error:
                state, as_of = _absence(_status(error), error)
                read = Read(call, time.monotonic(), key, state, 0, as_of)
            else:
                read = _found(call, key, reply.route, reply.provenance.as_of_revision)
            self._note(read, life, target, floor)

        await self._failover("floor" if floor else "read", attempt, key)

    async def _read_many(self) -> None:
        keys = list(dict.fromkeys(self._load.key(self._dice) for _ in range(BATCH)))
        request = pb.BatchResolveRequest(keys=map(message, keys))

        async def attempt(target: Target) -> None:
            life, call = target.server.life, time.monotonic()
            reply = await target.stub.BatchResolve(request, timeout=READ_SECONDS)
            now = time.monotonic()
            for key, result in zip(keys, reply.results, strict=True):
                if result.HasField("route"):
                    read = _found(call, key, result.route, result.provenance.as_of_revision)
                elif result.status.code == grpc.StatusCode.NOT_FOUND.value[0]:
                    state, as_of = _absence(result.status)
                    read = Read(call, now, key, state, 0, as_of)
                else:
                    continue  # of one key, which was not cached: no answer is no violation
                self._note(read, life, target, 0)

        await self._failover("batch", attempt, keys=len(keys))

    def _note(self, read: Read, life: str, target: Target, floor: int) -> None:
        read.server = life if life == target.server.life else ""
        read.session, read.floor, read.token = self._session, floor, self._token
        self._history.reads.append(read)
        if self._token:
            self._seen[read.key] = max(self._seen.get(read.key, 0), read.revision or read.as_of)

    async def _failover(
        self, kind: str, attempt: Callable[[Target], Awaitable[None]], key: str = "", keys: int = 1
    ) -> None:
        """Try one server after the other; write down whether any of them answered."""
        call, target, answered = time.monotonic(), None, False
        for _ in range(READ_ATTEMPTS):
            target = self._load.choose(self._home, self._dice, target)
            try:
                await attempt(target)
            except grpc.aio.AioRpcError as error:
                self._failed(target, error, kind)
            else:
                answered = True
                break
        self._history.calls.append(Call(call, time.monotonic(), kind, answered, key, keys))

    async def _write(self, kind: str, key: str) -> None:
        """Write until the outcome is known, always by the same request_id."""
        number = next(self._load._numbers)
        request_id = f"w{number}"
        method, request = _mutation(kind, key, request_id, self._dice)
        write = Write(time.monotonic(), UNANSWERED, key, kind, request_id, "unknown", session=self._session)
        target: Target | None = None
        for attempt in range(1, WRITE_ATTEMPTS + 1):
            write.attempts = attempt
            target = self._load.choose(self._home, self._dice, target)
            if await self._attempt(write, target, method, request):
                break
            await asyncio.sleep(0.1 * attempt)
        self._history.writes.append(write)
        prompt = write.answer != "unknown" and write.ret - write.call < PROMPT_SECONDS
        self._history.calls.append(Call(write.call, time.monotonic(), "write", prompt, key))
        if self._token and write.answer == "ok":
            self._seen[key] = max(self._seen.get(key, 0), write.revision)

    async def _attempt(self, write: Write, target: Target, method: str, request: Any) -> bool:
        life = target.server.life
        try:
            reply = await getattr(target.stub, method)(request, timeout=WRITE_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() not in REFUSED:
                self._failed(target, error, "write")
                return False
            write.answer = "refused"
        else:
            write.answer = "ok"
            write.revision = reply.revision if write.kind == "delete" else reply.route.revision
        write.ret = time.monotonic()
        write.server = life if life == target.server.life else ""
        return True

    def _failed(self, target: Target, error: grpc.aio.AioRpcError, kind: str) -> None:
        code = error.code()
        label = f"{kind} {code.name}"
        self._history.errors[label] = self._history.errors.get(label, 0) + 1
        reason = _reason(_status(error))
        if code is grpc.StatusCode.DEADLINE_EXCEEDED or (code is grpc.StatusCode.UNAVAILABLE and not reason):
            target.shunned = time.monotonic() + SHUN_SECONDS


def _mutation(kind: str, key: str, request_id: str, dice: random.Random) -> tuple[str, Any]:
    common: dict[str, Any] = {"key": message(key), "request_id": request_id}
    url = f"https://{request_id}.internal:8443"
    if kind == "create":
        return "Create", pb.CreateRequest(url=url, active=dice.random() < 0.8, **common)
    if kind == "update":
        return "Update", pb.UpdateRequest(url=url, allow_missing=dice.random() < 0.7, **common)
    if kind == "activate":
        return "Activate", pb.ActivateRequest(exclusive=dice.random() < 0.3, **common)
    if kind == "deactivate":
        return "Deactivate", pb.DeactivateRequest(**common)
    return "Delete", pb.DeleteRequest(**common)


def _found(call: float, key: str, route: route_pb2.Route, as_of: int) -> Read:
    return Read(call, time.monotonic(), key, "active", route.revision, as_of, route.url)


def _status(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for field, value in error.trailing_metadata() or ():
        if field == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value)
    return status_pb2.Status()


def _info(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    info = error_details_pb2.ErrorInfo()
    with suppress(IndexError):
        status.details[0].Unpack(info)
    return info


def _reason(status: status_pb2.Status) -> str:
    return str(_info(status).reason)


def _absence(status: status_pb2.Status, error: grpc.aio.AioRpcError | None = None) -> tuple[str, int]:
    """Read what a NOT_FOUND says. Raises ``error`` if it is another one."""
    info = _info(status)
    if error is not None and error.code() is not grpc.StatusCode.NOT_FOUND:
        raise error
    return "absent" if info.reason == "ROUTE_NOT_FOUND" else "inactive", int(info.metadata["revision"])
