"""Calls of every kind to a server, in the background: what makes dashboards move."""

import itertools
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

import grpc

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.propagation_pb2 import ReportProgressRequest
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.watch_pb2 import ResumeToken, Watcher, WatchRequest
from tests.support.waiting import eventually

SECONDS = 10.0
TENANT = "team-a"
URL = "https://payments.internal:8443"

Metadata = tuple[tuple[str, str], ...]


def key(version: str) -> RouteKey:
    return RouteKey(tenant=TENANT, service="payments", env="prod", version=version)


def bearer(credential: str) -> Metadata:
    return (("authorization", f"Bearer {credential}"),)


class Traffic:
    """Rounds of calls by a thread, of which many fail as they should; ``rounds`` counts those that are done."""

    def __init__(self, channel: grpc.Channel, metadata: Metadata = (), *, writes: bool = True) -> None:
        self.stub: Any = RouteServiceStub(channel)
        self.metadata = metadata
        self.rounds = 0
        self._writes = writes
        self._numbers = itertools.count()
        self._run_id = os.urandom(4).hex()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, daemon=True),
            threading.Thread(target=self._watch, daemon=True),
        ]
        self._stream: Any = None

    def call(self, method: str, request: object, metadata: Metadata | None = None) -> Any:
        """Call once, and return the answer, or None where it is refused."""
        with suppress(grpc.RpcError):
            return getattr(self.stub, method)(
                request, timeout=SECONDS, metadata=self.metadata if metadata is None else metadata
            )
        return None

    @contextmanager
    def running(self) -> Iterator["Traffic"]:
        """Call until the block ends."""
        for thread in self._threads:
            thread.start()
        try:
            yield self
        finally:
            self._stop.set()
            if self._stream is not None:
                self._stream.cancel()
            for thread in self._threads:
                thread.join(SECONDS * 3)

    def wait_for_rounds(self, count: int) -> None:
        goal = self.rounds + count
        assert eventually(lambda: self.rounds >= goal)

    def _run(self) -> None:
        while not self._stop.is_set():
            self._read()
            if self._writes:
                self._change()
            self.rounds += 1
            self._stop.wait(0.02)

    def _read(self) -> None:
        for version in ("stays", "stays", "absent"):
            self.call("Resolve", pb.ResolveRequest(key=key(version)))
        self.call("BatchResolve", pb.BatchResolveRequest(keys=[key("stays"), key("absent")]))
        self.call("List", pb.ListRequest(tenant=TENANT))
        self.call("Get", pb.GetRequest(key=key("stays")))

    def _change(self) -> None:
        version = f"{self._run_id}-{next(self._numbers)}"
        self.call("Update", pb.UpdateRequest(key=key("stays"), url=f"{URL}/{version}", allow_missing=True))
        self.call("Create", pb.CreateRequest(key=key(version), url=URL))
        self.call("Create", pb.CreateRequest(key=key(version), url=URL))
        self.call("Deactivate", pb.DeactivateRequest(key=key(version)))
        self.call("Activate", pb.ActivateRequest(key=key(version)))
        self.call("Delete", pb.DeleteRequest(key=key(version)))
        imported = pb.ImportedRoute(key=key("imported"), url=f"{URL}/{version}")
        self.call("Import", pb.ImportRequest(routes=[imported], existing=pb.EXISTING_ROUTES_UPDATE))

    def _watch(self) -> None:
        watcher = Watcher(id=f"watcher-{self._run_id}-0000", name="traffic")
        while not self._stop.is_set():
            self._stream = self.stub.Watch(
                WatchRequest(tenant=TENANT, watcher=watcher), timeout=600, metadata=self.metadata
            )
            with suppress(grpc.RpcError):
                for event in self._stream:
                    if event.WhichOneof("event") in ("checkpoint", "end_of_snapshot"):
                        applied: ResumeToken = getattr(event, event.WhichOneof("event")).as_of
                        report = ReportProgressRequest(watcher_id=watcher.id, applied=applied, tenant=TENANT)
                        self.call("ReportProgress", report)
            self._stop.wait(0.2)


@contextmanager
def repeatedly(work: Callable[[], object], *, threads: int = 1, pause: float = 0.0) -> Iterator[None]:
    """Do ``work`` in threads until the block ends."""
    stop = threading.Event()

    def run() -> None:
        while not stop.wait(pause):
            work()

    running = [threading.Thread(target=run, daemon=True) for _ in range(threads)]
    for thread in running:
        thread.start()
    try:
        yield
    finally:
        stop.set()
        for thread in running:
            thread.join(SECONDS * 3)
