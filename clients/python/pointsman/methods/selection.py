"""The methods of ``Client`` that choose a version, and explain what is chosen."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pointsman.keys import FamilyKey, RouteKey
from pointsman.methods.calls import SyncCalls
from pointsman.results import Consistency
from pointsman.rpc.requests import Moment

if TYPE_CHECKING:
    from pointsman.traffic import Explanation, Selection, SelectionResult


class SelectionMethods(SyncCalls):
    """``select``, ``batch_select`` and ``explain``."""

    def select(
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
        """Return the route to use of ``key``, a ``FamilyKey`` or its text ``tenant/service/env``, and why it is that.

        The traffic divides callers between versions; where none is set, the only active version gets all of them.
        ``sticky_key``, the id of a user for example, of at most 256 bytes, keeps a caller at its version as long as
        weights stay as they are; without one the version is random, by the weights. With ``as_of``, a revision or an
        aware time, it is what would have been selected then, not together with ``min_revision``; the rest is as in
        ``resolve``.

        Raises NoActiveVersion, AmbiguousVersion where several are active and no traffic is set, or
        RevisionNotReached; with ``as_of`` also RevisionCompacted and RevisionInFuture.
        """
        from pointsman.rpc import traffic_operations, traffic_requests

        floor = self._session.select_floor(key, min_revision, epoch, as_of)
        request = traffic_requests.select(key, sticky_key, floor, consistency, as_of)
        return self._call(traffic_operations.SELECT, request, timeout)

    def batch_select(
        self,
        selections: Iterable[tuple[FamilyKey | str, str]],
        *,
        min_revision: int | None = None,
        epoch: str = "",
        consistency: Consistency = Consistency.MINIMIZE_LATENCY,
        timeout: float | None = None,
    ) -> "tuple[SelectionResult, ...]":
        """Return one result for each pair of a key and a sticky key, in their order; each has its own error.

        Any number of pairs: each 1,000 of them are one call, and ``timeout`` bounds all calls together.
        """
        from pointsman.rpc import traffic_operations
        from pointsman.rpc.select_batch import SelectBatch

        floor = self._session.floor_of_all(min_revision, epoch)
        seconds_left = self._session.countdown(timeout)
        batch = SelectBatch(self._session, selections, floor, consistency)
        while (request := batch.next_request(min_revision)) is not None:
            batch.take(self._call(traffic_operations.BATCH_SELECT, request, seconds_left()))
        return batch.results()

    def explain(
        self,
        key: RouteKey | FamilyKey | str,
        *,
        sticky_key: str = "",
        subject: str = "",
        timeout: float | None = None,
    ) -> "Explanation":
        """Say what ``resolve`` of a key or, for one without a version, ``select`` would answer now, and why.

        ``subject`` is whose permission is explained, by default that of the caller; another one needs the permission
        to read changes. What is not found is no error here: it is in the result.
        """
        from pointsman.rpc import traffic_operations, traffic_requests

        request = traffic_requests.explain(key, sticky_key, subject)
        return self._call(traffic_operations.EXPLAIN, request, timeout)
