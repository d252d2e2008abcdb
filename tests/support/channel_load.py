"""Calls without a pause through a channel of a route, while somebody changes the route."""

import asyncio
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import grpc

from tests.support.waiting import eventually
from tests.support.xds_clients.backend import METHOD

CALLERS = 4
SECONDS = 20.0


@dataclass
class Load:
    """What became of the calls so far."""

    answers: Counter[str] = field(default_factory=Counter)
    """How many calls each backend has answered."""
    failures: list[str] = field(default_factory=list)
    """What the others failed with."""
    stopped: threading.Event = field(default_factory=threading.Event)
    started: float = field(default_factory=time.monotonic)
    rate: float = 0.0
    """Calls a second, once it has ended."""

    def note(self, error: grpc.RpcError) -> None:
        """Take note of a failure."""
        call: Any = error
        self.failures.append(f"{call.code()}: {call.details()}")

    def reaches(self, backend: str, calls: int = 20) -> bool:
        """Wait until a backend has answered so many calls more."""
        enough = self.answers[backend] + calls
        return eventually(lambda: self.answers[backend] >= enough)


@contextmanager
def load(channel: grpc.Channel) -> Iterator[Load]:
    """Call from threads until the block ends."""
    made = Load()
    lock = threading.Lock()
    call: Any = channel.unary_unary(METHOD)

    def run() -> None:
        while not made.stopped.is_set():
            try:
                answer = call(b"0", timeout=SECONDS).decode()
            except grpc.RpcError as error:
                made.note(error)
            else:
                with lock:
                    made.answers[answer] += 1

    threads = [threading.Thread(target=run) for _ in range(CALLERS)]
    with _ended_by(made, threads):
        yield made


@contextmanager
def async_load(open_channel: Any) -> Iterator[Load]:
    """Call from tasks of an event loop in a thread until the block ends. ``open_channel`` runs in that loop."""
    made = Load()

    async def run(call: Any) -> None:
        while not made.stopped.is_set():
            try:
                answer = await call(b"0", timeout=SECONDS)
            except grpc.RpcError as error:
                made.note(error)
            else:
                made.answers[answer.decode()] += 1

    async def main() -> None:
        async with open_channel() as channel:
            call: Any = channel.unary_unary(METHOD)
            await asyncio.gather(*(run(call) for _ in range(CALLERS)))

    with _ended_by(made, [threading.Thread(target=lambda: asyncio.run(main()))]):
        yield made


@contextmanager
def _ended_by(made: Load, threads: list[threading.Thread]) -> Iterator[None]:
    for thread in threads:
        thread.start()
    try:
        yield
    finally:
        made.stopped.set()
        for thread in threads:
            thread.join(2 * SECONDS)
        seconds = time.monotonic() - made.started
        made.rate = (made.answers.total() + len(made.failures)) / seconds
