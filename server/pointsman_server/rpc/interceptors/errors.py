"""Turns errors into statuses, so that no text of an exception reaches a caller."""

import asyncio
from typing import Any

import grpc
from grpc import StatusCode

from pointsman_server.domain.errors import PointsmanError
from pointsman_server.rpc import call as calls
from pointsman_server.rpc import refusal as refusals
from pointsman_server.rpc.call import Context
from pointsman_server.rpc.interceptors.stage import Handler, Method, Stage
from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)


def translate(*, pushback: bool) -> Stage:
    """Answer errors of the domain by their status, and all others by INTERNAL with a fixed text.

    A method that a service declares and does not implement is UNIMPLEMENTED: generated servicers set that code and
    raise NotImplementedError.
    """

    def stage(_method: Method, proceed: Handler) -> Handler:
        async def handle(request: Any, context: Context) -> Any:
            try:
                return await proceed(request, context)
            except PointsmanError as error:
                refusal = refusals.of_error(error, calls.current().request_id, pushback=pushback)
                await refusals.abort(context, refusal)
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except Exception as error:  # the boundary: no cause goes to the caller
                request_id = calls.current().request_id
                if isinstance(error, NotImplementedError) and _is_unimplemented(context):
                    await refusals.abort(context, refusals.of_unimplemented())
                log.exception("a bug", request_id=request_id)
                await refusals.abort(context, refusals.of_bug(request_id))

        return handle

    return stage


def _is_unimplemented(context: Context) -> bool:
    code: Any = context.code()
    return code in (StatusCode.UNIMPLEMENTED, StatusCode.UNIMPLEMENTED.value[0])
