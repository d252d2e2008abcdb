"""The methods of ``Client`` about traffic: how calls are divided between versions."""

from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

from pointsman.keys import FamilyKey
from pointsman.methods.calls import SyncCalls
from pointsman.results import Traffic
from pointsman.rpc.requests import Moment

if TYPE_CHECKING:
    from pointsman.change_sets import Weights


class TrafficMethods(SyncCalls):
    """``set_traffic``, ``get_traffic``, ``list_traffic`` and ``delete_traffic``."""

    def set_traffic(
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
        """Divide the calls of ``key``, ``tenant/service/env``, between versions, and return the traffic.

        ``weights`` are versions with basis points, in order, which add up to 10,000: ``{"v1": 9000, "v2": 1000}``.
        While no version that has a weight is active, the first active one of ``fallbacks`` gets all calls.

        Raises InvalidArgument for other sums, TargetNotFound for a version without a route, and TrafficNotFound or
        RevisionMismatch when the traffic is not at ``expected_revision`` (0: any).
        """
        from pointsman.rpc import traffic_operations, traffic_requests

        request = traffic_requests.set_traffic(key, weights, fallbacks, expected_revision, request_id, reason)
        return self._call(traffic_operations.SET_TRAFFIC, request, timeout)

    def get_traffic(
        self, key: FamilyKey | str, *, as_of: Moment | None = None, timeout: float | None = None
    ) -> Traffic:
        """Return the traffic of ``tenant/service/env``, from the store: as it is now, or as it was at ``as_of``.

        Raises TrafficNotFound; with ``as_of`` also RevisionCompacted and RevisionInFuture.
        """
        from pointsman.rpc import traffic_operations, traffic_requests

        return self._call(traffic_operations.GET_TRAFFIC, traffic_requests.get_traffic(key, as_of), timeout)

    def list_traffic(
        self,
        *,
        tenant: str = "",
        service: str = "",
        env: str = "",
        page_size: int = 0,
        timeout: float | None = None,
    ) -> Iterator[Traffic]:
        """Iterate over the traffic that matches, in the order of its keys; empty matches any. Pages as in ``list``."""
        from pointsman.rpc import traffic_operations, traffic_requests

        request = traffic_requests.list_traffic(tenant, service, env, page_size)
        return self._pages(traffic_operations.LIST_TRAFFIC, request, timeout)

    def delete_traffic(
        self,
        key: FamilyKey | str,
        *,
        expected_revision: int = 0,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> int:
        """Remove the traffic of ``tenant/service/env``, and return the revision of the removal.

        Raises TrafficNotFound, or RevisionMismatch when the traffic is not at ``expected_revision`` (0: any).
        """
        from pointsman.rpc import traffic_operations, traffic_requests

        request = traffic_requests.delete_traffic(key, expected_revision, request_id, reason)
        return self._call(traffic_operations.DELETE_TRAFFIC, request, timeout)
