"""The load: clients on raw stubs, which write down what they saw.

Readers stick to one server, or go round; of those that go round half send back what they saw (``min_revision`` and its
epoch). Writers write with a request_id, retry the same one until they know, and read what they wrote. To each server
some writers stick. ``tests.faults.traffic`` has those that commit, revert and select.
"""

import asyncio
import itertools
import random
import time
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import grpc
import grpc.aio
from google.rpc import error_details_pb2, status_pb2

from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.faults.history import SETS, UNANSWERED, Call, Failure, History, Read, Write
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
NO_FLOOR = (0, "")
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
        grpc.StatusCode.FAILED_PRECONDITION,
        grpc.StatusCode.OUT_OF_RANGE,
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

    def __init__(self, servers: Sequence[Server], seed: int, rate: float, readers: int = 60, writers: int = 9) -> None:
        self.history = History()
        self._seed = seed
        self._readers, self._writers = readers, writers
        self._pause = readers / rate
        self._write_pause = 0.4
        # Of each attempt to write that is under way, by request_id: the life of the server, and when it began.
        self.underway: dict[str, tuple[str, float]] = {}
        self._servers = servers
        self._targets: list[Target] = []
        self.numbers = itertools.count(1)
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

    def spawn(self, work: Coroutine[Any, Any, None]) -> None:
        """Run one more client, which ends when ``ended`` says so."""
        self._tasks.append(asyncio.create_task(work))

    @property
    def ended(self) -> bool:
        """Whether clients are to end after the call that is under way."""
        return self._ended

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
    """One client: one call after the other. ``token`` sends back, for every key, the highest revision seen.

    The answer to a write names no epoch: its revision is sent without one, until a read tells.
    """

    def __init__(self, load: Load, session: int, home: int | None = None, token: bool = False) -> None:
        self._load, self._session, self._home, self._token = load, session, home, token
        self._dice = random.Random(f"{load._seed}-{session}")
        self._seen: dict[str, tuple[int, str]] = {}
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
        floor = self._seen.get(key, NO_FLOOR)
        request = pb.ResolveRequest(key=message(key), min_revision=floor[0], epoch=floor[1])

        async def attempt(target: Target) -> None:
            life, call = target.server.life, time.monotonic()
            try:
                reply = await target.stub.Resolve(request, timeout=READ_SECONDS)
            except grpc.aio.AioRpcError as error:
                read = _absent(call, key, status_of(error), error)
            else:
                read = _found(call, key, reply.route, reply.provenance)
            self._note(read, life, target, floor)

        await self._failover("floor" if floor[0] else "read", attempt, key)

    async def _read_many(self) -> None:
        keys = list(dict.fromkeys(self._load.key(self._dice) for _ in range(BATCH)))
        request = pb.BatchResolveRequest(keys=map(message, keys))

        async def attempt(target: Target) -> None:
            life, call = target.server.life, time.monotonic()
            reply = await target.stub.BatchResolve(request, timeout=READ_SECONDS)
            for key, result in zip(keys, reply.results, strict=True):
                if result.HasField("route"):
                    read = _found(call, key, result.route, result.provenance)
                elif result.status.code == grpc.StatusCode.NOT_FOUND.value[0]:
                    read = _absent(call, key, result.status)
                else:
                    continue  # of one key, which was not cached: no answer is no violation
                self._note(read, life, target, NO_FLOOR)

        await self._failover("batch", attempt, keys=len(keys))

    def _note(self, read: Read, life: str, target: Target, floor: tuple[int, str]) -> None:
        read.server = life if life == target.server.life else ""
        read.session, read.token = self._session, self._token
        read.floor, read.floor_epoch = floor
        self._history.reads.append(read)
        if self._token:
            seen = read.revision or read.as_of
            # Where the epoch is another one, or was not known, revisions cannot be compared.
            self._seen[read.key] = (max(floor[0], seen) if floor[1] == read.epoch else seen, read.epoch)

    async def _failover(
        self, kind: str, attempt: Callable[[Target], Awaitable[None]], key: str = "", keys: int = 1
    ) -> None:
        """Try one server after the other; write down whether any of them answered."""
        call, target, answered = time.monotonic(), None, False
        for _ in range(READ_ATTEMPTS):
            target = self._load.choose(self._home, self._dice, target)
            life, begun = target.server.life, time.monotonic()
            try:
                await attempt(target)
            except grpc.aio.AioRpcError as error:
                epoch = self._seen.get(key, NO_FLOOR)[1]
                failure = Failure(begun, time.monotonic(), kind, life, error.code().name, "", epoch=epoch)
                self._failed(target, error, failure)
                if failure.reason == "REVISION_NOT_REACHED" and not epoch:
                    # Perhaps that of a write which a restore took back. What its answer cannot say, nobody knows.
                    self._seen.pop(key, None)
            else:
                answered = True
                break
        self._history.calls.append(Call(call, time.monotonic(), kind, answered, key, keys))

    async def _write(self, kind: str, key: str) -> None:
        """Write until the outcome is known, always by the same request_id."""
        number = next(self._load.numbers)
        request_id = f"w{number}"
        method, request = _mutation(kind, key, request_id, self._dice)
        write = Write(time.monotonic(), UNANSWERED, key, kind, request_id, "unknown", session=self._session)
        await self._carry_out(write, method, request)
        if self._token and write.answer == "ok":
            self._seen[key] = (write.revision, "")

    async def _carry_out(self, write: Write, method: str, request: Any) -> None:
        """Send a request until its outcome is known, and write down what became of it."""
        target: Target | None = None
        for attempt in range(1, WRITE_ATTEMPTS + 1):
            write.attempts = attempt
            target = self._load.choose(self._home, self._dice, target)
            if await self._attempt(write, target, method, request):
                break
            await asyncio.sleep(0.1 * attempt)
        self._history.writes.append(write)
        prompt = write.answer != "unknown" and write.ret - write.call < PROMPT_SECONDS
        self._history.calls.append(Call(write.call, time.monotonic(), _kind(write), prompt, write.key))

    async def _attempt(self, write: Write, target: Target, method: str, request: Any) -> bool:
        life, begun = target.server.life, time.monotonic()
        self._load.underway[write.request_id] = (life, begun)
        try:
            reply = await getattr(target.stub, method)(request, timeout=WRITE_SECONDS)
        except grpc.aio.AioRpcError as error:
            if error.code() not in REFUSED:
                code, request_id = error.code().name, write.request_id
                self._failed(target, error, Failure(begun, time.monotonic(), _kind(write), life, code, "", request_id))
                return False
            write.answer = "refused"
            self._refused(write, error)
        else:
            write.answer = "ok"
            self._answered(write, reply)
        finally:
            del self._load.underway[write.request_id]
        write.ret = time.monotonic()
        write.server = life if life == target.server.life else ""
        return True

    def _answered(self, write: Write, reply: Any) -> None:
        """Take note of what a write was answered."""
        write.revision = reply.revision if write.kind == "delete" else reply.route.revision

    def _refused(self, write: Write, error: grpc.aio.AioRpcError) -> None:
        """Take note of why a write was refused."""

    def _failed(self, target: Target, error: grpc.aio.AioRpcError, failure: Failure) -> None:
        code, info = error.code(), info_of(status_of(error))
        failure.reason, failure.limit = str(info.reason), info.metadata.get("limit", "")
        self._history.failures.append(failure)
        if code is grpc.StatusCode.DEADLINE_EXCEEDED or (code is grpc.StatusCode.UNAVAILABLE and not failure.reason):
            target.shunned = time.monotonic() + SHUN_SECONDS


def _kind(write: Write) -> str:
    """Say as what a call counts."""
    return "set" if write.kind in SETS else "write"


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


def _found(call: float, key: str, route: route_pb2.Route, where: pb.Provenance) -> Read:
    now = time.monotonic()
    return Read(call, now, key, "active", route.revision, where.as_of_revision, route.url, epoch=where.epoch)


def status_of(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    """Return the status with its details; an empty one without them."""
    for field, value in error.trailing_metadata() or ():
        if field == "grpc-status-details-bin":
            return status_pb2.Status.FromString(value)
    return status_pb2.Status()


def info_of(status: status_pb2.Status) -> error_details_pb2.ErrorInfo:
    """Return the ErrorInfo of a status; an empty one if it has none."""
    info = error_details_pb2.ErrorInfo()
    with suppress(IndexError):
        status.details[0].Unpack(info)
    return info


def _absent(call: float, key: str, status: status_pb2.Status, error: grpc.aio.AioRpcError | None = None) -> Read:
    """Read what a NOT_FOUND says. Raises ``error`` if it is another one."""
    if error is not None and error.code() is not grpc.StatusCode.NOT_FOUND:
        raise error
    info, now = info_of(status), time.monotonic()
    state = "absent" if info.reason == "ROUTE_NOT_FOUND" else "inactive"
    return Read(call, now, key, state, 0, int(info.metadata["revision"]), epoch=info.metadata["epoch"])
