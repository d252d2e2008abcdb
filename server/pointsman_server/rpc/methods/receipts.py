"""ReportProgress and GetPropagation of RouteService, and whom Watch serves."""

from contextlib import AbstractContextManager, nullcontext
from datetime import UTC, datetime

from pointsman.v1 import propagation_pb2 as pb
from pointsman.v1.watch_pb2 import WatchRequest
from pointsman_server.domain.codec import timestamp
from pointsman_server.events.receipts.propagation import Laggard
from pointsman_server.events.receipts.receipts import Receipts
from pointsman_server.events.watch.filters import Filter
from pointsman_server.ports.store import Clock
from pointsman_server.ports.watcher_registry import OpenWatch, WatchName
from pointsman_server.rpc.call import current_call


class ReceiptMethods:
    """Serves the methods from the receipts of all servers."""

    def __init__(self, receipts: Receipts) -> None:
        self._receipts = receipts

    def watching(self, request: WatchRequest) -> AbstractContextManager[None]:
        """Return a block during which the current call is a watch; without an id nobody counts it."""
        watcher, call = request.watcher, current_call()
        if not watcher.id:
            return nullcontext()
        name = WatchName(watcher.id, call.identity.subject, request.tenant, request.service, request.env)
        return self._receipts.watching(OpenWatch(name, watcher.name, call.peer, datetime.now(UTC)))

    async def report_progress(self, request: pb.ReportProgressRequest) -> pb.ReportProgressResponse:
        """Note what a watcher has applied. Raises what ``Receipts.report`` raises."""
        subject = current_call().identity.subject
        name = WatchName(request.watcher_id, subject, request.tenant, request.service, request.env)
        await self._receipts.report(name, Clock(request.applied.epoch, request.applied.revision))
        return pb.ReportProgressResponse()

    async def get_propagation(self, request: pb.GetPropagationRequest) -> pb.GetPropagationResponse:
        """Say who has applied a revision. Raises StoreUnavailable."""
        of = Filter(request.tenant, request.service, request.env)
        found = await self._receipts.propagation(request.revision, of)
        return pb.GetPropagationResponse(
            watcher_count=found.watchers,
            applied_count=found.applied,
            behind=map(_progress, found.behind),
            all_servers=found.all_servers,
        )


def _progress(laggard: Laggard) -> pb.WatcherProgress:
    watch = laggard.watch
    return pb.WatcherProgress(
        watcher_id=watch.name.id,
        name=watch.title,
        address=watch.address,
        subject=watch.name.subject,
        applied_revision=laggard.revision,
        watch_time=timestamp(watch.since),
    )
