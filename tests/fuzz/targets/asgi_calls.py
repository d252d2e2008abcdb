"""Calls over ASGI: any headers, and any bytes in any parts. The method echoes, and reads what it is sent."""

import asyncio
import gzip
import re
from typing import Any

import grpc
from hypothesis import strategies as st

from pointsman_server.rpc import statuses
from pointsman_server.rpc.transport.asgi.unary_calls import UnaryMethod
from tests.support.asgi_call import AsgiCall, Header, frame

MOST = 64
# OK, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED, INTERNAL: what the specification asks for.
CODES = {0, 3, 4, 8, 12, 13}
LOOP = asyncio.new_event_loop()

PARTS = st.one_of(
    st.binary(max_size=80),
    st.builds(frame, st.binary(max_size=MOST + 1), st.integers(0, 2)),
    st.builds(lambda body: frame(gzip.compress(body, mtime=0), 1), st.binary(max_size=MOST + 1)),
)
HEADERS = st.tuples(
    st.sampled_from((b"grpc-timeout", b"grpc-encoding", b"x-bin", b"authorization", b"x-request-id", b"te")),
    st.one_of(
        st.binary(max_size=12), st.sampled_from((b"gzip", b"deflate", b"identity", b"1H", b"10S", b"AA==", b"AA,AQ"))
    ),
)
INPUTS = st.tuples(st.lists(HEADERS, max_size=4), st.lists(PARTS, max_size=4))


async def _echo(request: bytes, context: Any) -> bytes:
    context.invocation_metadata()
    context.time_remaining()
    return request


METHOD = UnaryMethod(grpc.unary_unary_rpc_method_handler(_echo), MOST, 10)


def check(value: tuple[list[Header], list[bytes]]) -> None:
    """Make a call; it ends with a whole response, or a status of the specification that shows no bug."""
    headers, parts = value
    call = LOOP.run_until_complete(AsgiCall(*parts, headers=headers).made_to(METHOD))
    code, text = call.status
    assert code in CODES, f"{code} {text!r}"
    assert text != statuses.INTERNAL_TEXT.encode(), "an unexpected error"
    assert re.fullmatch(rb"[\x20-\x7e]*", text), f"no text of HTTP/2: {text!r}"
    if code:
        assert call.body == b""
    else:
        assert len(call.body) <= MOST + 5
        assert call.body == frame(call.body[5:])
