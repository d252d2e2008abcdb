"""Serves a Resolve or Select that the local cache cannot answer: it waits for Redis or PostgreSQL."""

import asyncio
from typing import cast

from pointsman_server.domain.codec import key_to_bytes
from pointsman_server.domain.routes import RouteKey
from pointsman_server.reads.answer import Answer
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.reads.resolver import Resolver
from pointsman_server.rpc.call import NO_DEADLINE, Context, begin_call
from pointsman_server.rpc.fastpath.call_ends import CallContext, CallEnds, DeadlinePassed
from pointsman_server.rpc.fastpath.terms import Terms
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.runtime.shared_timer import SharedTimer


class Misses:
    """Loads keys for admitted calls, and counts who reads them. ``deadline`` in seconds is for callers without one."""

    def __init__(
        self, resolver: Resolver, admission: Admission, ends: CallEnds, reads: ReadCounts, deadline: float
    ) -> None:
        self._resolver = resolver
        self._admission = admission
        self._ends = ends
        self._reads = reads
        self._deadline = deadline
        self._late: set[asyncio.Task[object]] = set()
        self._deadlines: SharedTimer[asyncio.Task[object]] = SharedTimer(deadline, self._cancel)

    async def resolve(
        self, key: RouteKey, terms: Terms, subject: str, begun: float, context: CallContext
    ) -> bytes | Refusal:
        """Load the key; return the response, or how the call is refused. The load goes on when this is cancelled."""
        outcome = await self._outcome("Resolve", key, terms, begun, context)
        if isinstance(outcome, Answer) and outcome.snapshot.route is not None:
            self._reads.read(key_to_bytes(key), subject)
        return self._ends.conclude(outcome, begun, context)

    async def select(
        self, family: RouteKey, sticky_key: bytes, terms: Terms, subject: str, begun: float, context: CallContext
    ) -> bytes | Refusal:
        """Load the family, and select from it; as ``resolve``."""
        outcome = await self._outcome("Select", family, terms, begun, context)
        response, key = self._ends.conclude_select(outcome, sticky_key, begun, context)
        if key:
            self._reads.read(key, subject)
        return response

    async def _outcome(
        self, method: str, key: RouteKey, terms: Terms, begun: float, context: CallContext
    ) -> Answer | Exception:
        begin_call(cast("Context", context))
        self._admission.enter()
        remaining = context.time_remaining()
        try:
            if remaining is None or remaining >= NO_DEADLINE:
                return await self._load_within_deadline(key, terms)
            return await self._load(key, terms)
        except asyncio.CancelledError:
            self._ends.cancelled(method, begun, context)
            raise
        finally:
            self._admission.leave()

    async def _load_within_deadline(self, key: RouteKey, terms: Terms) -> Answer | Exception:
        task = cast("asyncio.Task[object]", asyncio.current_task())
        cancelled_before = task.cancelling()
        self._deadlines.add(task)
        try:
            return await self._load(key, terms)
        except asyncio.CancelledError:
            # The client may have cancelled the call at the same time.
            if task not in self._late or task.uncancel() > cancelled_before:
                raise
            return DeadlinePassed(self._deadline)
        finally:
            self._deadlines.remove(task)
            self._late.discard(task)

    def _cancel(self, task: asyncio.Task[object]) -> None:
        self._late.add(task)
        task.cancel()

    async def _load(self, key: RouteKey, terms: Terms) -> Answer | Exception:
        try:
            if terms.from_store:
                return await self._resolver.load_from_store(key)
            return await self._resolver.load(key, terms.min_revision)
        except Exception as error:  # noqa: BLE001 - the boundary: a bug ends this call alone
            return error
