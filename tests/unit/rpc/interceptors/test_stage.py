"""The types of the chain: methods, and what passes each message of a stream."""

from typing import Any, cast

import grpc
import pytest

from pointsman_server.rpc.interceptors.stage import Method, Requests, StreamContext, check_requests


class Transport:
    """The context that a transport gives; remembers what is written."""

    def __init__(self, *requests: Any) -> None:
        self.requests = [*requests, grpc.aio.EOF]
        self.written: list[Any] = []

    async def read(self) -> Any:
        return self.requests.pop(0)

    async def write(self, response: Any) -> None:
        self.written.append(response)

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


def stream(*requests: Any) -> tuple[Transport, Any]:
    transport = Transport(*requests)
    return transport, StreamContext(cast("Any", transport))


@pytest.mark.parametrize(
    ("requests", "responses", "grpc_type"),
    [
        (False, False, "unary"),
        (True, False, "client_stream"),
        (False, True, "server_stream"),
        (True, True, "bidi_stream"),
    ],
)
def test_a_method_knows_its_type(requests: bool, responses: bool, grpc_type: str) -> None:
    method = Method.parse("/a.b.C/D", request_streaming=requests, response_streaming=responses)

    assert (method.service, method.name, method.grpc_type) == ("a.b.C", "D", grpc_type)
    assert method.streaming is (requests or responses)


async def test_each_request_passes_the_checks_in_their_order() -> None:
    _, context = stream(1, 2)
    passed: list[tuple[str, int]] = []

    async def slow(request: int, _context: Any) -> None:
        passed.append(("slow", request))

    context.received += [slow, lambda request, _: passed.append(("quick", request))]

    assert [request async for request in Requests(context)] == [1, 2]
    assert passed == [("slow", 1), ("quick", 1), ("slow", 2), ("quick", 2)]


async def test_a_request_that_is_refused_does_not_reach_the_handler() -> None:
    _, context = stream(1, 2, 3)

    def refuse(request: int, _context: Any) -> None:
        if request == 2:
            raise ValueError("refused")

    context.received.append(refuse)
    requests = Requests(context)

    assert await anext(requests) == 1
    with pytest.raises(ValueError, match="refused"):
        await anext(requests)


async def test_requests_that_are_read_one_by_one_are_checked_too() -> None:
    _, context = stream(1)
    passed: list[int] = []
    context.received.append(lambda request, _: passed.append(request))

    assert await context.read() == 1
    assert await context.read() is grpc.aio.EOF
    assert passed == [1]


async def test_a_response_is_seen_before_and_after_it_is_written() -> None:
    transport, context = stream()
    seen: list[tuple[str, int]] = []
    context.sending.append(lambda: seen.append(("sending", len(transport.written))))
    context.sent.append(lambda: seen.append(("sent", len(transport.written))))

    await context.write("response")

    assert seen == [("sending", 0), ("sent", 1)]


def test_all_else_is_asked_of_the_transport() -> None:
    assert stream()[1].peer() == "ipv4:127.0.0.1:1"


async def test_the_request_of_a_unary_call_is_checked_before_it_proceeds() -> None:
    done: list[str] = []

    async def proceed(_request: Any, _context: Any) -> str:
        done.append("proceed")
        return "response"

    handler = check_requests(Method("a", "b"), proceed, lambda _request, _context: done.append("check"))

    assert await handler("request", cast("Any", None)) == "response"
    assert done == ["check", "proceed"]
