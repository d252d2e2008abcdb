"""How a call ends whose handler raised, or that failed on its way out.

pyvoy ends a call with the status OK when the application raises: no error must escape to it.
"""

import asyncio

import grpc
from grpc import StatusCode
from starlette.types import Send

from pointsman_server.rpc import statuses
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.rpc.transport.asgi import responses
from pointsman_server.rpc.transport.asgi.context import AsgiContext
from pointsman_server.rpc.transport.asgi.headers import Rejected
from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)

# How much of a response has been sent.
NOTHING_SENT, HEADERS_SENT, BODY_SENT = range(3)
INTERNAL = Refusal(StatusCode.INTERNAL, statuses.INTERNAL_TEXT)
ENDED = Refusal(StatusCode.UNAVAILABLE, "the server ended the call")


class Gone(Exception):
    """The client has cancelled the call, or its connection is lost."""


def refusal_of(error: BaseException, context: AsgiContext) -> Refusal:
    """Return how a call ends whose handler raised ``error``; raise what is no error of a call."""
    if isinstance(error, Rejected):
        return error.refusal
    if isinstance(error, grpc.aio.AbortError):
        return _aborted(context)
    if not isinstance(error, Exception):
        raise error
    log.error("unexpected error outside of the interceptors", exc_info=error)
    return INTERNAL


def _aborted(context: AsgiContext) -> Refusal:
    code = context.code()
    known = code if isinstance(code, StatusCode) else StatusCode.UNKNOWN
    return Refusal(known, context.details(), context.trailing_metadata())


async def end_failed(send: Send, progress: int, error: BaseException) -> None:
    """End a call whose response could not be made or sent, or whose task was cancelled."""
    refusal = ENDED if isinstance(error, asyncio.CancelledError) else INTERNAL
    log.error("a call failed outside of the interceptors", exc_info=error)
    try:
        if progress == NOTHING_SENT:
            await responses.send_refusal(send, refusal)
            return
        if progress == HEADERS_SENT:
            await send({"type": "http.response.body", "body": b""})
        await responses.send_trailers(send, refusal)
    except Exception:  # what cannot be sent at all ends here
        log.exception("a failed call could not be ended")
