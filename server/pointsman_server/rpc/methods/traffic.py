"""Serves SetTraffic, GetTraffic, ListTraffic and DeleteTraffic."""

from pointsman.v1 import traffic_methods_pb2 as pb
from pointsman_server.ports.history import RouteHistory
from pointsman_server.ports.store import RouteStore
from pointsman_server.reads.resolver import Resolver
from pointsman_server.rpc.methods.write_meter import WriteMeter
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.writes.group_commit import GroupCommitter


class TrafficMethods:
    """Serves SetTraffic, GetTraffic, ListTraffic and DeleteTraffic."""

    def __init__(
        self,
        committer: GroupCommitter,
        store: RouteStore,
        resolver: Resolver,
        history: RouteHistory,
        writes: WriteMeter,
        fair_share: FairShare,
    ) -> None:
        self._committer = committer
        self._store = store
        self._resolver = resolver
        self._history = history
        self._writes = writes
        self._fair_share = fair_share

    async def set(self, request: pb.SetTrafficRequest) -> pb.SetTrafficResponse:
        """Serve the method."""
        raise NotImplementedError

    async def get(self, request: pb.GetTrafficRequest) -> pb.GetTrafficResponse:
        """Serve the method."""
        raise NotImplementedError

    async def list(self, request: pb.ListTrafficRequest) -> pb.ListTrafficResponse:
        """Serve the method."""
        raise NotImplementedError

    async def delete(self, request: pb.DeleteTrafficRequest) -> pb.DeleteTrafficResponse:
        """Serve the method."""
        raise NotImplementedError
