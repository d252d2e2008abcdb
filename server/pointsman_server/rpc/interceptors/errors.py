"""Turns errors into statuses, so that no text of an exception reaches a caller."""

import asyncio
from typing import Any

import grpc
from grpc import StatusCode

from pointsman_server.domain.errors import PointsmanError
from pointsman_server.rpc.call import Context, current_call
from pointsman_server.rpc.interceptors.stage import CallHandler, Method, Stage
from pointsman_server.rpc.refusal import Refusal, abort
from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)


def translate() -> Stage:
    """Refuse calls that raise domain errors by their status, and all other errors by INTERNAL with a fixed text.

    A method that a service declares and does not implement is UNIMPLEMENTED: generated servicers set that code and
    raise NotImplementedError.
    """

    def stage(_method: Method, proceed: CallHandler) -> CallHandler:
        async def handle(request: Any, context: Context) -> Any:
            try:
                return await proceed(request, context)
            except PointsmanError as error:
                refusal = Refusal.of_error(error, current_call().request_id)
                await abort(context, refusal)
            except (grpc.aio.AbortError, asyncio.CancelledError):
                raise
            except Exception as error:  # the boundary: no cause goes to the caller
                request_id = current_call().request_id
                if isinstance(error, NotImplementedError) and _is_unimplemented(context):
                    await abort(context, Refusal.of_unimplemented(request_id))
                log.exception("unexpected error", request_id=request_id)
                await abort(context, Refusal.of_bug(request_id))

        return handle

    return stage


def _is_unimplemented(context: Context) -> bool:
    code: Any = context.code()
    return code in (StatusCode.UNIMPLEMENTED, StatusCode.UNIMPLEMENTED.value[0])
