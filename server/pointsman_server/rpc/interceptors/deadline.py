"""Applies the server's default deadline to calls without a deadline."""

import asyncio
from typing import Any

from pointsman_server.rpc.call import NO_DEADLINE, Context, begin_call
from pointsman_server.rpc.interceptors.stage import CallHandler, Method, Stage
from pointsman_server.rpc.refusal import Refusal, abort


def limit(deadline: float) -> Stage:
    """End calls without a deadline after ``deadline`` seconds, except streams of responses, which end with a drain."""

    def stage(method: Method, proceed: CallHandler) -> CallHandler:
        if method.response_streaming:
            return proceed

        async def handle(request: Any, context: Context) -> Any:
            remaining = context.time_remaining()
            if remaining is not None and remaining < NO_DEADLINE:
                return await proceed(request, context)
            try:
                async with asyncio.timeout(deadline) as end:
                    return await proceed(request, context)
            except TimeoutError:
                if not end.expired():
                    raise
                await abort(context, Refusal.of_deadline(deadline, begin_call(context).request_id))

        return handle

    return stage
