"""Logs calls: one line when a call ends, also for a stream."""

import time
from typing import Any

from grpc import StatusCode

from pointsman_server.rpc.access_log import AccessLog
from pointsman_server.rpc.call import Context, code_of, current_call
from pointsman_server.rpc.interceptors.stage import CallHandler, Method, Stage


def record(sample: float) -> Stage:
    """Log calls by the rules of ``AccessLog``; ``sample`` is a share from 0 to 1."""
    access_log = AccessLog(sample)

    def stage(method: Method, proceed: CallHandler) -> CallHandler:
        async def handle(request: Any, context: Context) -> Any:
            begun = time.perf_counter()
            code = StatusCode.OK
            try:
                return await proceed(request, context)
            except BaseException as error:
                code = code_of(error, context)
                raise
            finally:
                access_log.record(method.name, code, begun, current_call())

        return handle

    return stage
