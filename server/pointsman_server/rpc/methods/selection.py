"""Serves Select and BatchSelect."""

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.ports.history import RouteHistory
from pointsman_server.reads.resolver import Resolver
from pointsman_server.reads.revision_tokens import RevisionTokens
from pointsman_server.rpc.methods.usage import UsageMethods
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.metrics import Metrics


class SelectionMethods:
    """Serves Select and BatchSelect."""

    def __init__(
        self,
        resolver: Resolver,
        tokens: RevisionTokens,
        history: RouteHistory,
        usage: UsageMethods,
        metrics: Metrics,
        fair_share: FairShare,
    ) -> None:
        self._resolver = resolver
        self._tokens = tokens
        self._history = history
        self._usage = usage
        self._metrics = metrics
        self._fair_share = fair_share

    async def select(self, request: pb.SelectRequest) -> pb.SelectResponse:
        """Serve the method."""
        raise NotImplementedError

    async def batch_select(self, request: pb.BatchSelectRequest) -> pb.BatchSelectResponse:
        """Serve the method."""
        raise NotImplementedError
