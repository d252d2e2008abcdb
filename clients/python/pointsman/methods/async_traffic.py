"""The methods of ``AsyncClient`` about traffic: how calls are divided between versions."""

# ruff: noqa: ASYNC109 - the timeout is a gRPC deadline: it goes to the server and bounds the retries too.

from collections.abc import AsyncIterator, Iterable
from typing import TYPE_CHECKING

from pointsman.keys import FamilyKey
from pointsman.methods.async_calls import AsyncCalls
from pointsman.results import Traffic
from pointsman.rpc.requests import Moment

if TYPE_CHECKING:
    from pointsman.change_sets import Weights


class AsyncTrafficMethods(AsyncCalls):
    """``set_traffic``, ``get_traffic``, ``list_traffic`` and ``delete_traffic``."""

    async def set_traffic(
        self,
        key: FamilyKey | str,
        weights: "Weights",
        *,
        fallbacks: Iterable[str] = (),
        expected_revision: int = 0,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> Traffic:
        """See ``Client.set_traffic``."""
        from pointsman.rpc import traffic_operations, traffic_requests

        request = traffic_requests.set_traffic(key, weights, fallbacks, expected_revision, request_id, reason)
        return await self._call(traffic_operations.SET_TRAFFIC, request, timeout)

    async def get_traffic(
        self, key: FamilyKey | str, *, as_of: Moment | None = None, timeout: float | None = None
    ) -> Traffic:
        """See ``Client.get_traffic``."""
        from pointsman.rpc import traffic_operations, traffic_requests

        return await self._call(traffic_operations.GET_TRAFFIC, traffic_requests.get_traffic(key, as_of), timeout)

    def list_traffic(
        self,
        *,
        tenant: str = "",
        service: str = "",
        env: str = "",
        page_size: int = 0,
        timeout: float | None = None,
    ) -> AsyncIterator[Traffic]:
        """See ``Client.list_traffic``."""
        from pointsman.rpc import traffic_operations, traffic_requests

        request = traffic_requests.list_traffic(tenant, service, env, page_size)
        return self._pages(traffic_operations.LIST_TRAFFIC, request, timeout)

    async def delete_traffic(
        self,
        key: FamilyKey | str,
        *,
        expected_revision: int = 0,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> int:
        """See ``Client.delete_traffic``."""
        from pointsman.rpc import traffic_operations, traffic_requests

        request = traffic_requests.delete_traffic(key, expected_revision, request_id, reason)
        return await self._call(traffic_operations.DELETE_TRAFFIC, request, timeout)
