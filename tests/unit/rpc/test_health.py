"""What the health service says, from the start of a server to its drain."""

import asyncio
from typing import Any, cast

import grpc
import pytest
from grpc_health.v1 import health_pb2 as pb

from pointsman_server.rpc.health import Health

READY = ("", "pointsman.v1.RouteService", "readiness")

SERVING, NOT_SERVING = pb.HealthCheckResponse.SERVING, pb.HealthCheckResponse.NOT_SERVING


class Context:
    async def abort(self, code: grpc.StatusCode, _details: str) -> None:
        raise grpc.aio.AbortError(code)


CONTEXT = cast("Any", Context())


async def statuses(health: Health) -> dict[str, Any]:
    listed = await health.List(pb.HealthListRequest(), CONTEXT)
    return {name: answer.status for name, answer in listed.statuses.items()}


async def test_a_server_that_starts_lives_and_does_not_serve_yet() -> None:
    assert await statuses(Health()) == {"liveness": SERVING} | dict.fromkeys(READY, NOT_SERVING)


async def test_it_serves_while_it_is_ready() -> None:
    health = Health()
    await health.ready(True)
    assert await statuses(health) == {"liveness": SERVING} | dict.fromkeys(READY, SERVING)

    await health.ready(False)
    assert (await health.Check(pb.HealthCheckRequest(service="readiness"), CONTEXT)).status == NOT_SERVING


async def test_once_draining_it_serves_no_more() -> None:
    health = Health()
    await health.ready(True)
    await health.drain()
    await health.ready(True)

    assert await statuses(health) == {"liveness": SERVING} | dict.fromkeys(READY, NOT_SERVING)


async def test_an_unknown_service_is_not_found() -> None:
    with pytest.raises(grpc.aio.AbortError) as caught:
        await Health().Check(pb.HealthCheckRequest(service="x"), CONTEXT)

    assert caught.value.args == (grpc.StatusCode.NOT_FOUND,)


async def test_a_watcher_is_told_of_each_change_and_of_nothing_else() -> None:
    health = Health()
    await health.ready(True)
    watch = aiter(health.Watch(pb.HealthCheckRequest(service=""), CONTEXT))
    assert (await anext(watch)).status == SERVING
    following = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    await health.ready(True)
    await asyncio.sleep(0)
    assert not following.done()

    await health.drain()

    assert (await following).status == NOT_SERVING


async def test_a_watcher_does_not_wake_for_what_is_no_change(monkeypatch: pytest.MonkeyPatch) -> None:
    health, looked = Health(), 0
    await health.ready(True)
    status = health._status

    def counted(service: str) -> Any:
        nonlocal looked
        looked += 1
        return status(service)

    monkeypatch.setattr(health, "_status", counted)
    watch = aiter(health.Watch(pb.HealthCheckRequest(service=""), CONTEXT))
    await anext(watch)
    following = asyncio.ensure_future(anext(watch))
    await asyncio.sleep(0)
    before = looked
    for _ in range(3):
        await health.ready(True)
        await asyncio.sleep(0)
    assert looked == before

    await health.ready(False)
    assert (await following).status == NOT_SERVING


async def test_the_service_of_another_port_has_a_name_of_its_own() -> None:
    health = Health("a.Service")
    await health.ready(True)
    assert await statuses(health) == {"liveness": SERVING, "readiness": SERVING, "": SERVING, "a.Service": SERVING}
