"""Where the time of a hit goes in the adapter between Envoy and the fast path: its steps alone, in this process."""

from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from typing import Any

from starlette.types import Message, Receive, Scope

from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.transport.asgi import framing, headers
from pointsman_server.rpc.transport.asgi.application import AsgiServer
from pointsman_server.rpc.transport.asgi.context import AsgiContext
from tests.bench import noop_envoy
from tests.bench.parts import METADATA, Parts

HEADERS = [
    (b"host", b"127.0.0.1:50051"),
    (b"content-type", b"application/grpc"),
    (b"te", b"trailers"),
    (b"grpc-accept-encoding", b"identity, deflate, gzip"),
    (b"grpc-timeout", b"20S"),
    (b"x-forwarded-proto", b"https"),
    *((name.encode(), value.encode()) for name, value in METADATA),
]
SCOPE: Scope = {
    "type": "http",
    "http_version": "2",
    "method": "POST",
    "path": "/pointsman.v1.RouteService/Resolve",
    "headers": HEADERS,
    "client": ("127.0.0.1", 50_000),
}
Work = Callable[[], Awaitable[object]]


def steps(parts: Parts) -> Iterator[tuple[str, Callable[[], object]]]:
    """Give what the adapter does for each call, each by itself."""
    body, response = framing.frame(parts.wire), parts.response.SerializeToString()
    yield "Envoy: look for the content type", partial(headers.first, HEADERS, b"content-type")
    yield "Envoy: compare the size of the metadata with its limit", partial(headers.exceeds, HEADERS, 16 << 10)
    yield "Envoy: make the context, and end it", lambda: AsgiContext(SCOPE).end()
    yield "Envoy: take the request out of its frame", partial(framing.whole_message, body, 4 << 20)
    yield "Envoy: decode the metadata", partial(headers.metadata_of, HEADERS)
    yield "Envoy: put the response into its frame", partial(framing.frame, response)


async def wholes(parts: Parts) -> dict[str, Work]:
    """Give a hit from ASGI event to ASGI event, and what the no-op does for it."""
    receive = receiving(parts)
    anybody = parts.door(parts.interceptor(Guards(Admission())))
    guarded = parts.door(parts.interceptor(await parts.guards()))
    return {
        "Envoy's no-op, from event to event": partial(noop_envoy.application, SCOPE, receive, _sent),
        "a hit on Envoy from event to event, where anybody may call": partial(anybody, SCOPE, receive, _sent),
        "a hit on Envoy from event to event, with a token, permission and limits": partial(
            guarded, SCOPE, receive, _sent
        ),
    }


def hit(application: AsgiServer, receive: Receive) -> Work:
    """Return a call of the application."""
    return partial(application, SCOPE, receive, _sent)


def receiving(parts: Parts) -> Receive:
    """Return how a call receives the request."""
    event: Message = {"type": "http.request", "body": framing.frame(parts.wire), "more_body": False}

    async def receive() -> Message:
        return event

    return receive


async def _sent(_event: Any) -> None:
    """Stand for Envoy."""
