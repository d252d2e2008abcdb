"""What a handler learns of its call, and how it says the call ends."""

import grpc
import pytest
from grpc import StatusCode

from pointsman_server.rpc.transport.asgi.context import AsgiContext
from pointsman_server.rpc.transport.asgi.headers import Rejected
from tests.support.asgi_call import AsgiCall, Header


def context_of(*headers: Header, **scope: object) -> AsgiContext:
    return AsgiContext(AsgiCall(headers=headers).scope | scope)


@pytest.mark.parametrize(
    ("client", "peer"),
    [
        (("127.0.0.1", 80), "ipv4:127.0.0.1:80"),
        (("::1", 80), "ipv6:%5B::1%5D:80"),
        (None, "unknown"),
    ],
)
def test_a_peer_is_written_as_grpc_does(client: object, peer: str) -> None:
    assert context_of(client=client).peer() == peer


def test_without_a_deadline_no_time_remains_or_is_missing() -> None:
    assert context_of().time_remaining() is None


def test_the_time_until_the_deadline_passes() -> None:
    remaining = context_of((b"grpc-timeout", b"10S")).time_remaining()
    assert remaining is not None
    assert 0 < remaining < 10


def test_a_malformed_deadline_is_said_once_and_is_then_none() -> None:
    context = context_of((b"grpc-timeout", b"10"))

    with pytest.raises(Rejected):
        context.time_remaining()
    assert context.code() is StatusCode.INVALID_ARGUMENT
    assert context.time_remaining() is None


def test_malformed_metadata_is_said_once_and_is_then_empty() -> None:
    context = context_of((b"x-request-id", b"mine"), (b"x-bin", b"?"))

    with pytest.raises(Rejected):
        context.invocation_metadata()
    assert (context.code(), context.details()) == (StatusCode.INVALID_ARGUMENT, "the value of x-bin is not base64")
    assert context.invocation_metadata() == ()


async def test_an_abort_sets_the_status_and_keeps_trailers_that_were_set() -> None:
    context = context_of()
    context.set_trailing_metadata([("a", "1")])
    with pytest.raises(grpc.aio.AbortError):
        await context.abort(StatusCode.ABORTED, "text")

    assert (context.code(), context.details(), context.trailing_metadata()) == (
        StatusCode.ABORTED,
        "text",
        (("a", "1"),),
    )


def test_done_callbacks_are_called_once() -> None:
    context = context_of()
    over: list[object] = []
    context.add_done_callback(over.append)
    context.end()
    context.end()

    assert over == [context]
