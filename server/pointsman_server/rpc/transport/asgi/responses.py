"""Sends responses of calls as ASGI messages."""

from collections.abc import Sequence

from grpc import StatusCode
from starlette.types import Message, Send

from pointsman_server.rpc.refusal import Refusal
from pointsman_server.rpc.transport.asgi.compression import ACCEPTED
from pointsman_server.rpc.transport.asgi.framing import frame
from pointsman_server.rpc.transport.asgi.headers import headers_of, percent_encoded

CONTENT_TYPE = (b"content-type", b"application/grpc")
HEADERS = [CONTENT_TYPE, (b"grpc-accept-encoding", ACCEPTED)]
START: Message = {"type": "http.response.start", "status": 200, "headers": HEADERS, "trailers": True}
OK_TRAILERS: Message = {"type": "http.response.trailers", "headers": [(b"grpc-status", b"0")]}
# A larger response is sent in parts, each when the server has taken the one before: so a client that does not read
# holds one part in the buffers of the server, and the call is not over before all of it is taken.
PART_BYTES = 1 << 16


def is_grpc(content_type: bytes | None) -> bool:
    """Say whether a request is one of gRPC, by its content type."""
    if content_type is None or not content_type.startswith(b"application/grpc"):
        return False
    # After it: nothing, the message format, or parameters. ``application/grpc-web`` is another protocol.
    return content_type[16:17] in (b"", b"+", b";")


def start(initial: Sequence[tuple[str, str | bytes]] = ()) -> Message:
    """Make the headers of a response, which go out with its first bytes."""
    if not initial:
        return START
    return {**START, "headers": [*HEADERS, *headers_of(initial)]}


async def send_message(send: Send, message: bytes) -> None:
    """Send a message of a stream; waits until the server has taken it."""
    await send({"type": "http.response.body", "body": frame(message), "more_body": True})


async def send_parts(send: Send, message: bytes) -> None:
    """Send the only message of a call, a large one."""
    body = frame(message)
    for begin in range(0, len(body), PART_BYTES):
        await send({"type": "http.response.body", "body": body[begin : begin + PART_BYTES], "more_body": True})
    await send({"type": "http.response.body", "body": b""})


async def send_trailers(send: Send, refusal: Refusal | None, extra: Sequence[tuple[str, str | bytes]] = ()) -> None:
    """End a call that has sent headers: by OK without ``refusal``."""
    if refusal is not None:
        await send({"type": "http.response.trailers", "headers": status_headers(refusal)})
    elif extra:
        await send({**OK_TRAILERS, "headers": [*OK_TRAILERS["headers"], *headers_of(extra)]})
    else:
        await send(OK_TRAILERS)


async def send_refusal(send: Send, refusal: Refusal) -> None:
    """End a call that has sent nothing: by headers alone (Trailers-Only)."""
    headers = [*HEADERS, *status_headers(refusal)]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    await send({"type": "http.response.body", "body": b""})


def status_headers(refusal: Refusal) -> list[tuple[bytes, bytes]]:
    """Write a status as headers."""
    code: StatusCode = refusal.code
    status = [(b"grpc-status", b"%d" % code.value[0]), (b"grpc-message", percent_encoded(refusal.text))]
    return [*status, *headers_of(refusal.trailers)]
