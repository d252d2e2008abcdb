"""The methods of ``AsyncClient`` that choose a version, and explain what is chosen."""

# ruff: noqa: ASYNC109 - the timeout is a gRPC deadline: it goes to the server and bounds the retries too.

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pointsman.keys import FamilyKey, RouteKey
from pointsman.methods.async_calls import AsyncCalls
from pointsman.results import Consistency
from pointsman.rpc.requests import Moment

if TYPE_CHECKING:
    from pointsman.traffic import Explanation, Selection, SelectionResult


class AsyncSelectionMethods(AsyncCalls):
    """``select``, ``batch_select`` and ``explain``."""

    async def select(
        self,
        key: FamilyKey | str,
        sticky_key: str = "",
        *,
        min_revision: int | None = None,
        epoch: str = "",
        consistency: Consistency = Consistency.MINIMIZE_LATENCY,
        as_of: Moment | None = None,
        timeout: float | None = None,
    ) -> "Selection":
        """See ``Client.select``."""
        from pointsman.rpc import traffic_operations, traffic_requests

        floor = self._session.select_floor(key, min_revision, epoch, as_of)
        request = traffic_requests.select(key, sticky_key, floor, consistency, as_of)
        return await self._call(traffic_operations.SELECT, request, timeout)

    async def batch_select(
        self,
        selections: Iterable[tuple[FamilyKey | str, str]],
        *,
        min_revision: int | None = None,
        epoch: str = "",
        consistency: Consistency = Consistency.MINIMIZE_LATENCY,
        timeout: float | None = None,
    ) -> "tuple[SelectionResult, ...]":
        """See ``Client.batch_select``."""
        from pointsman.rpc import traffic_operations
        from pointsman.rpc.select_batch import SelectBatch

        floor = self._session.floor_of_all(min_revision, epoch)
        seconds_left = self._session.countdown(timeout)
        batch = SelectBatch(self._session, selections, floor, consistency)
        while (request := batch.next_request(min_revision)) is not None:
            batch.take(await self._call(traffic_operations.BATCH_SELECT, request, seconds_left()))
        return batch.results()

    async def explain(
        self,
        key: RouteKey | FamilyKey | str,
        *,
        sticky_key: str = "",
        subject: str = "",
        timeout: float | None = None,
    ) -> "Explanation":
        """See ``Client.explain``."""
        from pointsman.rpc import traffic_operations, traffic_requests

        request = traffic_requests.explain(key, sticky_key, subject)
        return await self._call(traffic_operations.EXPLAIN, request, timeout)
