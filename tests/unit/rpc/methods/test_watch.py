"""Watch as a method: what it reads from the request, and what it writes."""

import asyncio
from typing import Any

import pytest

from pointsman.v1 import watch_pb2 as pb
from pointsman_server.events.watch.filters import Filter
from pointsman_server.ports.store import Clock
from pointsman_server.rpc.methods.watch import WatchMethod
from tests.support.call_context import CallContext


class Streams:
    """Streams that end after two events; ``served`` notes what they were asked for."""

    def __init__(self) -> None:
        self.served: list[tuple[Filter, Clock | None]] = []

    async def serve(self, wanted: Filter, resume: Clock | None, write: Any) -> None:
        self.served.append((wanted, resume))
        for event in (b"one", b"two"):
            await write(event)


@pytest.mark.parametrize(
    ("request_", "expected"),
    [
        (pb.WatchRequest(), (Filter(), None)),
        (pb.WatchRequest(tenant="a", service="b", env="c"), (Filter("a", "b", "c"), None)),
        (pb.WatchRequest(tenant="a", traffic=True), (Filter("a", traffic=True), None)),
        (pb.WatchRequest(resume=pb.ResumeToken(epoch="e", revision=7)), (Filter(), Clock("e", 7))),
        (pb.WatchRequest(resume=pb.ResumeToken(epoch="e")), (Filter(), Clock("e", 0))),
    ],
)
async def test_it_asks_for_what_the_request_says(request_: pb.WatchRequest, expected: tuple[Filter, Any]) -> None:
    streams, context = Streams(), CallContext()
    await WatchMethod(streams).watch(request_, context)  # type: ignore[arg-type]
    assert streams.served == [expected]
    assert context.written == [b"one", b"two"]


async def test_a_response_waits_until_the_one_before_is_taken() -> None:
    taken = asyncio.Event()

    class Slow(CallContext):
        async def write(self, response: Any) -> None:
            await super().write(response)
            await taken.wait()

    context = Slow()
    watching = asyncio.create_task(WatchMethod(Streams()).watch(pb.WatchRequest(), context))  # type: ignore[arg-type]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert context.written == [b"one"]
    taken.set()
    await watching
