"""The methods of ``AsyncClient`` about change sets: making one, undoing one, and what differs between two moments."""

# ruff: noqa: ASYNC109 - the timeout is a gRPC deadline: it goes to the server and bounds the retries too.

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pointsman.methods.async_calls import AsyncCalls
from pointsman.rpc import operations, requests
from pointsman.rpc.requests import Moment

if TYPE_CHECKING:
    from pointsman.change_sets import ChangeSetResult, Difference, Mutation


class AsyncChangeSetMethods(AsyncCalls):
    """``commit``, ``revert`` and ``diff``."""

    async def commit(
        self,
        mutations: "Iterable[Mutation]",
        *,
        dry_run: bool = False,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> "ChangeSetResult":
        """See ``Client.commit``."""
        from pointsman.rpc import traffic_operations, traffic_requests

        request = traffic_requests.commit(mutations, dry_run, request_id, reason)
        return await self._call(traffic_operations.commit(dry_run), request, timeout)

    async def revert(
        self,
        what: int | tuple[int, int],
        *,
        force: bool = False,
        dry_run: bool = False,
        epoch: str = "",
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> "ChangeSetResult":
        """See ``Client.revert``."""
        from pointsman.rpc import traffic_operations, traffic_requests

        request = traffic_requests.revert(what, force, dry_run, epoch, request_id, reason)
        return await self._call(traffic_operations.revert(dry_run), request, timeout)

    async def diff(
        self,
        start: Moment,
        end: Moment | None = None,
        *,
        tenant: str = "",
        service: str = "",
        env: str = "",
        timeout: float | None = None,
    ) -> "tuple[Difference, ...]":
        """See ``Client.diff``."""
        from pointsman.methods.net_changes import NetChanges, bounds

        for moment in (start, end):
            if moment is not None:
                asked = requests.list_routes(tenant, service, env, None, 1, moment)
                await self._call(operations.list_routes(moment), asked, timeout)  # raises if what was then is not known
        net = NetChanges()
        between = bounds(start, end)
        request = requests.list_changes(tenant, service, env, "", **between)
        pages = operations.list_changes(between.get("after_time"), between.get("before_time"))
        async for change in self._pages(pages, request, timeout):
            net.add(change)
        return net.differences()
