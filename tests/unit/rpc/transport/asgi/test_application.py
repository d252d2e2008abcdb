"""Requests reach their methods, or are refused before; the chain is around each method."""

import asyncio
from typing import Any

import grpc
import pytest
from grpc import StatusCode
from grpc_health.v1.health_pb2 import HealthCheckRequest
from starlette.types import Receive, Scope, Send

from pointsman_server.domain.errors import RouteNotFound
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.interceptors.chain import stages
from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor
from pointsman_server.rpc.transport.asgi.application import AsgiServer
from pointsman_server.telemetry.metrics import Metrics
from tests.support.asgi_call import AsgiCall, Header, frame, until

SERVICE = "grpc.health.v1.Health"
HELLO = HealthCheckRequest(service="hello").SerializeToString()
PATH = f"/{SERVICE}/Check"


class Served:
    """A method behind the chain: echoes, or raises ``error``."""

    def __init__(self) -> None:
        self.admission, self.metrics = Admission(), Metrics()
        self.error: Exception | None = None
        self.passed_on: list[str] = []
        order = stages(self.metrics, self.admission, deadline=10, access_log_sample=1)
        self.application = AsgiServer(
            Interceptor(order), message_bytes=100, metadata_bytes=1000, patience=10, others=self.others
        )
        handler = grpc.unary_unary_rpc_method_handler(
            self.handle, HealthCheckRequest.FromString, HealthCheckRequest.SerializeToString
        )
        self.application.add_registered_method_handlers(SERVICE, {"Check": handler})

    async def handle(self, request: Any, _context: Any) -> Any:
        if self.error:
            raise self.error
        return request

    async def others(self, scope: Scope, _receive: Receive, _send: Send) -> None:
        self.passed_on.append(scope["path"])

    async def call(self, *headers: Header, path: str = PATH) -> AsgiCall:
        return await AsgiCall(frame(HELLO), headers=headers, path=path).made_to(self.application)


@pytest.fixture
def served() -> Served:
    return Served()


async def test_a_method_is_found_by_its_path(served: Served) -> None:
    call = await served.call()

    assert (call.body, call.status) == (frame(HELLO), (0, b""))
    assert served.admission._open == 0


@pytest.mark.parametrize("path", ["/", "", PATH + "/", PATH.lower(), f"/{SERVICE}/Watch", "//" + PATH])
async def test_another_path_is_unimplemented(served: Served, path: str) -> None:
    call = await served.call(path=path)

    assert call.status == (StatusCode.UNIMPLEMENTED.value[0], b"unknown method")


async def test_what_is_not_grpc_is_passed_on(served: Served) -> None:
    call = AsgiCall(b"{}", path="/v1/routes")
    call.scope["headers"] = [(b"content-type", b"application/json")]
    await call.made_to(served.application)

    assert (served.passed_on, call.sent) == (["/v1/routes"], [])


@pytest.mark.parametrize(("size", "refused"), [(500, False), (1000, True)])
async def test_metadata_is_bounded(served: Served, size: int, refused: bool) -> None:
    call = await served.call((b"x-padding", b"x" * size))

    assert (call.status[0] == StatusCode.RESOURCE_EXHAUSTED.value[0]) is refused


async def test_an_error_of_the_domain_has_details(served: Served) -> None:
    served.error = RouteNotFound("a/b/c/d", 7, "epoch")
    call = await served.call((b"x-request-id", b"mine"))

    assert call.status[0] == StatusCode.NOT_FOUND.value[0]
    assert call.trailers[b"x-request-id"] == b"mine"
    assert call.trailers[b"grpc-status-details-bin"]


async def test_malformed_metadata_is_no_bug_of_ours(served: Served) -> None:
    call = await served.call((b"x-bin", b"!"))

    assert call.status == (StatusCode.INVALID_ARGUMENT.value[0], b"the value of x-bin is not base64")
    assert served.admission._open == 0


async def test_a_malformed_deadline_is_no_bug_of_ours(served: Served) -> None:
    call = await served.call((b"grpc-timeout", b"soon"))

    assert call.status[0] == StatusCode.INVALID_ARGUMENT.value[0]
    assert b"grpc-timeout" in call.status[1]
    labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": "Check", "grpc_code": "InvalidArgument"}
    assert served.metrics.registry.get_sample_value("grpc_server_handled_total", labels) == 1


def unread(served: Served) -> "tuple[AsgiCall, asyncio.Task[AsgiCall]]":
    """Make a call whose handler ends, and whose response the client does not take."""
    call = AsgiCall(frame(HELLO), path=PATH)
    call.reads.clear()
    return call, asyncio.create_task(call.made_to(served.application))


async def test_a_call_is_finished_when_its_response_is_taken_and_not_when_its_handler_has_ended(
    served: Served,
) -> None:
    call, making = unread(served)
    await until(lambda: served.application._open._open == 1 and served.admission._open == 0 and not call.waiting)
    finished = asyncio.create_task(served.application.finished())
    await served.admission.close(30)
    await asyncio.sleep(0)
    assert not finished.done()

    call.reads.set()
    await asyncio.wait_for(finished, 10)

    assert making.done() or call.status == (0, b"")


async def test_a_call_that_begins_later_is_not_waited_for(served: Served) -> None:
    first, _ = unread(served)
    await until(lambda: not first.waiting)
    finished = asyncio.create_task(served.application.finished())
    await asyncio.sleep(0)
    later, making = unread(served)
    await until(lambda: not later.waiting)
    assert not finished.done()

    first.reads.set()
    await asyncio.wait_for(finished, 10)

    assert not making.done()
    later.reads.set()
    await making


async def test_a_server_without_calls_is_finished(served: Served) -> None:
    await served.call()
    await asyncio.wait_for(served.application.finished(), 10)


async def test_a_call_that_is_cancelled_is_finished(served: Served) -> None:
    call, making = unread(served)
    await until(lambda: not call.waiting)
    making.cancel()
    call.reads.set()

    await asyncio.wait_for(served.application.finished(), 10)
