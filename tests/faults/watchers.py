"""Watchers among the clients: each keeps a view from the events of Watch, and writes down all that it received.

One that is interrupted resumes, at any server, from where it is; one whose token is void begins a new view. Filters
differ: all routes, one service, one env. Half of them ask for traffic, too.
"""

import asyncio
import random
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc
import grpc.aio

from pointsman.v1 import route_pb2, traffic_pb2
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.watch_pb2 import EndOfSnapshot, ResumeToken, Watcher, WatchRequest, WatchResponse
from tests.faults.history import division_text, key_of
from tests.faults.load import CHANNEL, KEYS
from tests.faults.rig import Server

WATCHERS = 6
# The protocol: a stream that is silent for so long is closed.
SILENCE_SECONDS = 15.0
# How long after the last write a watcher may take to have it.
CATCH_UP_SECONDS = 20.0
VOID = frozenset({grpc.StatusCode.OUT_OF_RANGE, grpc.StatusCode.ABORTED})

State = tuple[int, str, str]  # revision, state, url


@dataclass(slots=True)
class Received:
    """One change set, as it was received: its revisions with their keys, and what it is complete as of."""

    at: float
    as_of: int
    changes: list[tuple[int, str]]


@dataclass(slots=True)
class View:
    """What one watcher held, from one snapshot on: ``table`` is its replica as of ``revision``."""

    watcher: int
    filter: tuple[str, str]  # service and env; empty: all
    epoch: str
    base: int
    snapshot: dict[str, State]
    table: dict[str, State] = field(default_factory=dict)
    received: list[Received] = field(default_factory=list)
    revision: int = 0
    problems: list[str] = field(default_factory=list)
    traffic: bool = False

    def matches(self, key: str) -> bool:
        """Say whether a key is of this view; that of traffic has no version."""
        _, service, env, version = key.split("/")
        return self.filter[0] in ("", service) and self.filter[1] in ("", env) and (self.traffic or version != "")


class WatchingClient:
    """One watcher. ``views`` are those that it had, the last one still open."""

    def __init__(self, number: int, servers: Sequence[Server], seed: int) -> None:
        self._number = number
        self._servers = servers
        self._dice = random.Random(f"{seed}-watcher-{number}")
        self._filter = self._choose_filter()
        self._home = number % len(servers) if number % 2 else None
        self._traffic = number >= WATCHERS // 2
        self.views: list[View] = []
        self.ends: list[str] = []
        self.ended = False
        self._batches: dict[str, State] = {}
        self._partial: list[route_pb2.RouteChange] = []

    def _choose_filter(self) -> tuple[str, str]:
        return [("", ""), (f"s{self._dice.randrange(KEYS // 4)}", ""), ("", "prod")][self._number % 3]

    @property
    def revision(self) -> int:
        """How far it is."""
        return self.views[-1].revision if self.views else 0

    async def run(self) -> None:
        """Watch until ``ended``."""
        while not self.ended:
            server = self._dice.choice(self._servers) if self._home is None else self._servers[self._home]
            async with grpc.aio.insecure_channel(server.address, options=CHANNEL) as channel:
                try:
                    await self._watch(channel)
                except grpc.aio.AioRpcError as error:
                    self.ends.append(error.code().name)
                    if error.code() in VOID and self.views:
                        self.views.append(View(self._number, self._filter, "", 0, {}, traffic=self._traffic))
                except TimeoutError:
                    self.ends.append("SILENT")
            await asyncio.sleep(self._dice.uniform(0.1, 0.5))

    async def _watch(self, channel: grpc.aio.Channel) -> None:
        stub: Any = RouteServiceStub(channel)
        service, env = self._filter
        watcher = Watcher(name=f"watcher-{self._number}")
        request = WatchRequest(service=service, env=env, watcher=watcher, traffic=self._traffic)
        if self.views and self.views[-1].epoch:
            request.resume.CopyFrom(ResumeToken(epoch=self.views[-1].epoch, revision=self.views[-1].revision))
        self._batches, self._partial = {}, []
        stream = stub.Watch(request)
        try:
            while not self.ended:
                async with asyncio.timeout(SILENCE_SECONDS):
                    event = await stream.read()
                if event is grpc.aio.EOF:
                    return
                self._apply(event)
        finally:
            stream.cancel()

    def _apply(self, event: WatchResponse) -> None:
        kind = event.WhichOneof("event")
        if kind == "snapshot":
            self._batches |= {key_of(route.key): state_of(route) for route in event.snapshot.routes}
            self._batches |= {traffic_key(each): state_of_traffic(each) for each in event.snapshot.traffic}
        elif kind == "end_of_snapshot":
            self._begin(event.end_of_snapshot)
        elif kind == "changes":
            self._partial += event.changes.changes
            if not event.changes.partial:
                self._change(event.changes.as_of)
        elif kind == "checkpoint":
            self._advance(event.checkpoint.as_of)

    def _begin(self, end: EndOfSnapshot) -> None:
        as_of, divided = end.as_of, sum(key.endswith("/") for key in self._batches)
        view = View(self._number, self._filter, as_of.epoch, as_of.revision, self._batches, traffic=self._traffic)
        view.table, view.revision = dict(self._batches), as_of.revision
        if (end.route_count, end.traffic_count) != (len(self._batches) - divided, divided):
            told = f"{end.route_count} routes and {end.traffic_count} of traffic"
            view.problems.append(f"a snapshot of {told} brought {len(self._batches)}, {divided} of them of traffic")
        self.views.append(view)
        self._batches = {}

    def _change(self, as_of: ResumeToken) -> None:
        view, changes, self._partial = self.views[-1], self._partial, []
        if as_of.epoch != view.epoch or as_of.revision <= view.revision:
            view.problems.append(f"changes as of {as_of.revision} of {as_of.epoch} after {view.revision}")
        for change in changes:
            key = key_of(change.key)
            if change.HasField("after"):
                view.table[key] = state_of(change.after)
            elif change.HasField("traffic_after"):
                view.table[key] = state_of_traffic(change.traffic_after)
            else:
                view.table.pop(key, None)
        done = [(change.revision, key_of(change.key)) for change in changes]
        view.received.append(Received(time.monotonic(), as_of.revision, done))
        view.revision = as_of.revision

    def _advance(self, as_of: ResumeToken) -> None:
        view = self.views[-1]
        if as_of.epoch != view.epoch or as_of.revision < view.revision:
            view.problems.append(f"a checkpoint of {as_of.revision} of {as_of.epoch} after {view.revision}")
        view.revision = max(view.revision, as_of.revision)


class Watchers:
    """All watchers of a run."""

    def __init__(self, servers: Sequence[Server], seed: int, count: int = WATCHERS) -> None:
        self._clients = [WatchingClient(number, servers, seed) for number in range(count)]
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        """Begin to watch."""
        self._tasks = [asyncio.create_task(client.run()) for client in self._clients]

    async def stop(self, revision: int) -> None:
        """Wait until all have ``revision``, or for as long as that may take, and end them."""
        with suppress(TimeoutError):
            async with asyncio.timeout(CATCH_UP_SECONDS):
                while any(client.revision < revision for client in self._clients):  # noqa: ASYNC110 - they are many
                    await asyncio.sleep(0.1)
        for client in self._clients:
            client.ended = True
        for task in self._tasks:
            task.cancel()
        for result in await asyncio.gather(*self._tasks, return_exceptions=True):
            if isinstance(result, BaseException) and not isinstance(result, asyncio.CancelledError):
                raise result

    @property
    def views(self) -> list[list[View]]:
        """The views of each watcher, in their order."""
        return [[view for view in client.views if view.epoch] for client in self._clients]

    @property
    def ends(self) -> list[str]:
        """How streams ended."""
        return [end for client in self._clients for end in client.ends]


def state_of(route: route_pb2.Route) -> State:
    """Say what a route is."""
    return route.revision, "active" if route.active else "inactive", route.url


def traffic_key(traffic: traffic_pb2.Traffic) -> str:
    """Return the key of traffic, which has no version."""
    return f"{traffic.tenant}/{traffic.service}/{traffic.env}/"


def state_of_traffic(traffic: traffic_pb2.Traffic) -> State:
    """Say what traffic is."""
    targets = {each.version: each.weight for each in traffic.targets}
    slices = [(each.version, each.size) for each in traffic.slices]
    return traffic.revision, "traffic", division_text(targets, traffic.fallbacks, slices)
