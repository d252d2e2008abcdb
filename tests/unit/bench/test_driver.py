"""Our own generator against a real gRPC server: it makes the calls that it says, and hides no failure."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_service_pb2_grpc import RouteServiceServicer, add_RouteServiceServicer_to_server
from tests.bench import requests
from tests.bench.driver import Drive, DriveFailed, Job, Outcome

KEYS = requests.keys("team", 50)


class Recording(RouteServiceServicer):
    """Remembers who asked what, and refuses the service that it is told to."""

    def __init__(self) -> None:
        self.asked: list[str] = []
        self.tokens: set[str] = set()
        self.refuse = ""

    async def Resolve(self, request: pb.ResolveRequest, context: Any) -> pb.ResolveResponse:  # noqa: N802
        self.asked.append(request.key.service)
        self.tokens |= {value for name, value in context.invocation_metadata() if name == "authorization"}
        if request.key.service == self.refuse:
            await context.abort(grpc.StatusCode.NOT_FOUND, "not here")
        return pb.ResolveResponse(route={"key": request.key, "url": "https://here"})


@pytest.fixture
def recording() -> Recording:
    return Recording()


@pytest.fixture
async def job(recording: Recording, tmp_path: Path) -> AsyncIterator[Job]:
    server = grpc.aio.server()
    add_RouteServiceServicer_to_server(recording, server)
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    path = requests.write(tmp_path / "asked.bin", (pb.ResolveRequest(key=key) for key in KEYS))
    headers = {"authorization": "Bearer token"}
    yield Job(
        f"127.0.0.1:{port}", "pointsman.v1.RouteService/Resolve", str(path), 60, 2, 8, again=False, headers=headers
    )
    await server.stop(0)


async def run(job: Job) -> Outcome:
    import asyncio

    return await asyncio.to_thread(Drive(job).run)


async def test_each_request_is_sent_once(job: Job, recording: Recording) -> None:
    outcome = await run(job)
    assert sorted(recording.asked) == sorted(key.service for key in KEYS)
    assert (outcome.calls, len(outcome.microseconds)) == (50, 50)
    assert min(outcome.microseconds) > 0
    assert recording.tokens == {"Bearer token"}


async def test_requests_go_round_until_the_time_is_up(job: Job, recording: Recording) -> None:
    outcome = await run(replace(job, again=True, seconds=0.3))
    assert outcome.calls == len(recording.asked)
    assert len(set(recording.asked)) > 1
    assert outcome.seconds >= 0.3


async def test_an_answer_can_be_kept(job: Job) -> None:
    outcome = await run(replace(job, connections=1, in_flight=1, seconds=0, keep=True))
    answer = pb.ResolveResponse.FromString(bytes.fromhex(outcome.answer)[5:])
    assert (outcome.calls, answer.route.key.service) == (1, "service-0")


async def test_a_call_that_is_not_ok_ends_the_run(job: Job, recording: Recording) -> None:
    recording.refuse = "service-7"
    with pytest.raises(DriveFailed, match="status 5: not here"):
        await run(job)


async def test_more_is_sent_than_the_window_of_a_connection_takes(
    job: Job, recording: Recording, tmp_path: Path
) -> None:
    large = pb.ResolveRequest(key=KEYS[0], epoch="e" * 40_000)
    path = requests.write(tmp_path / "large.bin", [large] * 20)
    outcome = await run(replace(job, bodies=str(path)))
    assert outcome.calls == len(recording.asked) == 20
