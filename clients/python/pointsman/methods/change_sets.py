"""The methods of ``Client`` about change sets: making one, undoing one, and what differs between two moments."""

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pointsman.methods.calls import SyncCalls
from pointsman.rpc import operations, requests
from pointsman.rpc.requests import Moment

if TYPE_CHECKING:
    from pointsman.change_sets import ChangeSetResult, Difference, Mutation


class ChangeSetMethods(SyncCalls):
    """``commit``, ``revert`` and ``diff``."""

    def commit(
        self,
        mutations: "Iterable[Mutation]",
        *,
        dry_run: bool = False,
        request_id: str = "",
        reason: str = "",
        timeout: float | None = None,
    ) -> "ChangeSetResult":
        """Make up to 1,000 mutations together, as one change set: all of them, or none.

        They are decided in their order, each after those before it: ``[Create("team-a/payments/prod/v2", url),
        SetTraffic("team-a/payments/prod", {"v2": 10_000})]``. No reader sees only a part of them. ``dry_run`` returns
        what would be done, and changes nothing.

        Raises what the first mutation that is refused would have raised alone; ``error.refusals`` names up to 16 of
        them, by their number.
        """
        from pointsman.rpc import traffic_operations, traffic_requests

        request = traffic_requests.commit(mutations, dry_run, request_id, reason)
        return self._call(traffic_operations.commit(dry_run), request, timeout)

    def revert(
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
        """Undo a change set by its id, or the changes of a range of revisions, both ends included, as a new change set.

        What was changed becomes as it was before; the history stays as it is. ``force`` undoes also what was changed
        since, and loses that. ``epoch`` is the one that the revisions count in, if known. ``dry_run`` as in ``commit``.

        Raises ChangedSince, RevisionCompacted, RevisionInFuture, EpochChanged, and InvalidArgument where a number is no
        change set, or the range has more than 10,000 revisions.
        """
        from pointsman.rpc import traffic_operations, traffic_requests

        request = traffic_requests.revert(what, force, dry_run, epoch, request_id, reason)
        return self._call(traffic_operations.revert(dry_run), request, timeout)

    def diff(
        self,
        start: Moment,
        end: Moment | None = None,
        *,
        tenant: str = "",
        service: str = "",
        env: str = "",
        timeout: float | None = None,
    ) -> "tuple[Difference, ...]":
        """Return what differs at ``end`` (None: now) from what was at ``start``, in the order of the keys.

        Each is a revision, of which the state right after it is meant, or an aware time. Only what matches; empty
        matches any. What was changed and changed back does not differ. It reads all changes between the two moments;
        ``timeout`` bounds each page. Raises RevisionCompacted and RevisionInFuture.
        """
        from pointsman.methods.net_changes import NetChanges, bounds

        for moment in (start, end):
            if moment is not None:
                asked = requests.list_routes(tenant, service, env, None, 1, moment)
                self._call(operations.list_routes(moment), asked, timeout)  # raises if what was then is not known
        net = NetChanges()
        between = bounds(start, end)
        request = requests.list_changes(tenant, service, env, "", **between)
        pages = operations.list_changes(between.get("after_time"), between.get("before_time"))
        for change in self._pages(pages, request, timeout):
            net.add(change)
        return net.differences()
