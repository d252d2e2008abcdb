"""A Resolve that waits for Redis or PostgreSQL."""

import asyncio
from collections.abc import Callable
from functools import partial

from pointsman_server.reads.answer import Answer
from pointsman_server.rpc.call import NO_DEADLINE
from pointsman_server.rpc.fastpath.call_ends import CallContext, CallEnds, DeadlinePassed
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.runtime.batcher import Callback

Outcome = Answer | BaseException
# Loads a key and gives the result to a callback.
Load = Callable[[Callback[Answer]], None]


class PendingResolve:
    """An admitted call, which ends with ``wait``. ``deadline`` in seconds is for callers that set none."""

    __slots__ = ("_admission", "_begun", "_context", "_deadline", "_ends", "_load")

    def __init__(
        self,
        load: Load,
        admission: Admission,
        ends: CallEnds,
        deadline: float,
        begun: float,
        context: CallContext,
    ) -> None:
        self._load = load
        self._admission = admission
        self._ends = ends
        self._begun = begun
        self._context = context
        remaining = context.time_remaining()
        self._deadline = deadline if remaining is None or remaining >= NO_DEADLINE else None

    async def wait(self) -> bytes | Refusal:
        """Load the key; return the response, or how the call is refused."""
        loop = asyncio.get_running_loop()
        result: asyncio.Future[Outcome] = loop.create_future()
        timer = None
        if self._deadline is not None:
            timer = loop.call_later(self._deadline, _set_once, result, DeadlinePassed(self._deadline))
        try:
            self._start(partial(_set_once, result))
            outcome = await result
        except asyncio.CancelledError:
            # The caller has gone, or its deadline is exceeded. The load goes on.
            self._ends.cancelled("Resolve", self._begun, self._context)
            raise
        finally:
            self._admission.leave()
            if timer:
                timer.cancel()
        return self._ends.conclude(outcome, self._begun, self._context)

    def _start(self, on_result: Callback[Answer]) -> None:
        """Load the key; ``on_result`` gets the outcome, perhaps before this returns."""
        try:
            self._load(on_result)
        except Exception as error:  # noqa: BLE001 - the boundary: a bug ends this call alone
            on_result(error)


def _set_once(result: asyncio.Future[Outcome], outcome: Outcome) -> None:
    if not result.done():
        result.set_result(outcome)
