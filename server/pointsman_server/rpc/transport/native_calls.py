"""Resolves on the native transport: answered by their call numbers, without a task for each."""

import asyncio
import time
from collections.abc import Iterable
from functools import partial
from typing import Any, Protocol

from pointsman_server.reads.answer import Answer
from pointsman_server.rpc.fastpath.call_ends import DeadlinePassed
from pointsman_server.rpc.fastpath.fast_path import FastPath
from pointsman_server.rpc.fastpath.pending import PendingResolve
from pointsman_server.rpc.refusal import Refusal

# The metadata of a call, its peer, and the seconds until its deadline, or None.
Details = tuple[Iterable[tuple[str, str | bytes]], str, float | None]


class Responder(Protocol):
    """The part of pygrpc-native that ends calls by their numbers."""

    def respond(self, call_id: int, payload: bytes) -> bool: ...

    def fail(self, call_id: int, code: int, message: str, trailing_metadata: Any = None) -> bool: ...


class NativeContext:
    """The ``CallContext`` of a call on the native transport."""

    __slots__ = ("_begun", "_details")

    def __init__(self, details: Details) -> None:
        self._details = details
        self._begun = time.perf_counter()

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        return self._details[0]

    def peer(self) -> str:
        return self._details[1]

    def time_remaining(self) -> float | None:
        given = self._details[2]
        return None if given is None else given - (time.perf_counter() - self._begun)


class _WaitingCall:
    __slots__ = ("call_id", "due", "pending", "responder")

    def __init__(self, call_id: int, pending: PendingResolve, responder: Responder, due: float | None) -> None:
        self.call_id = call_id
        self.pending = pending
        self.responder = responder
        self.due = due


class NativeCalls:
    """Serves Resolves by the fast path. Calls that wait are entries of a table until their keys are loaded."""

    def __init__(self, path: FastPath) -> None:
        self._resolve = path.resolve
        self._waiting: dict[int, _WaitingCall] = {}
        # Calls without a deadline of their client, in the order in which the server's default expires.
        self._without_deadline: dict[int, _WaitingCall] = {}
        self._timer: asyncio.TimerHandle | None = None

    def __len__(self) -> int:
        return len(self._waiting)

    def take(self, call_id: int, request: bytes, details: Details, responder: Responder) -> bool:
        """Serve a Resolve, now or later. Return False for one that the interceptor chain has to serve."""
        outcome = self._resolve(request, NativeContext(details))
        # First what is most frequent: a hit is answered in a microsecond or two.
        if isinstance(outcome, bytes):
            responder.respond(call_id, outcome)
        elif isinstance(outcome, PendingResolve):
            self._wait(call_id, outcome, responder)
        elif isinstance(outcome, Refusal):
            _respond(responder, call_id, outcome)
        else:
            return False
        return True

    def cancel(self, call_id: int) -> bool:
        """Drop a call that has been cancelled. Return whether it waited here. The load of its key goes on."""
        waiting = self._end(call_id)
        if waiting is not None:
            waiting.pending.cancel()
        return waiting is not None

    def _wait(self, call_id: int, pending: PendingResolve, responder: Responder) -> None:
        loop = asyncio.get_running_loop()
        due = None if pending.deadline is None else loop.time() + pending.deadline
        waiting = self._waiting[call_id] = _WaitingCall(call_id, pending, responder, due)
        if due is not None:
            self._without_deadline[call_id] = waiting
            if self._timer is None:
                self._timer = loop.call_at(due, self._expire)
        pending.start(partial(self._finish, waiting))

    def _expire(self) -> None:
        """Refuse the calls whose default deadline has passed, and set the timer for the next one."""
        self._timer = None
        loop = asyncio.get_running_loop()
        for waiting in list(self._without_deadline.values()):
            if waiting.due is None or waiting.pending.deadline is None:
                continue
            if waiting.due > loop.time():
                self._timer = loop.call_at(waiting.due, self._expire)
                return
            self._finish(waiting, DeadlinePassed(waiting.pending.deadline))

    def _end(self, call_id: int) -> _WaitingCall | None:
        self._without_deadline.pop(call_id, None)
        return self._waiting.pop(call_id, None)

    def _finish(self, waiting: _WaitingCall, outcome: Answer | BaseException) -> None:
        if self._waiting.get(waiting.call_id) is waiting:
            self._end(waiting.call_id)
            _respond(waiting.responder, waiting.call_id, waiting.pending.finish(outcome))


def _respond(responder: Responder, call_id: int, ending: bytes | Refusal) -> None:
    if isinstance(ending, bytes):
        responder.respond(call_id, ending)
    else:
        responder.fail(call_id, ending.code.value[0], ending.text, list(ending.trailers))
