"""Begins a call: what is logged for it, and its answer, have its request id."""

from typing import Any

from pointsman_server.rpc.call import Context, begin_call
from pointsman_server.rpc.interceptors.stage import CallHandler, Method
from pointsman_server.rpc.transport.limits import REQUEST_ID


def identify(_method: Method, proceed: CallHandler) -> CallHandler:
    """Make the call the one that ``current_call`` returns."""

    async def handle(request: Any, context: Context) -> Any:
        begin_call(context)
        return await proceed(request, context)

    return handle


def identify_and_answer(method: Method, proceed: CallHandler) -> CallHandler:
    """As ``identify``, and send the request id: in the trailers, and for a stream of responses before its first one.

    Not before that: a client retries a call that is refused, unless it has received anything.
    """

    async def handle(request: Any, context: Any) -> Any:
        begin_and_answer(context)
        if method.response_streaming:
            context.initial_metadata = ((REQUEST_ID, begin_call(context).request_id),)
        return await proceed(request, context)

    return handle


def begin_and_answer(context: Context) -> None:
    """Begin a call, and send its request id in the trailers. A refusal replaces them, by its own."""
    context.set_trailing_metadata(((REQUEST_ID, begin_call(context).request_id),))
