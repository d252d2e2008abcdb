"""Serves SetTraffic, GetTraffic, ListTraffic and DeleteTraffic."""

from pointsman.v1 import route_pb2
from pointsman.v1 import traffic_methods_pb2 as pb
from pointsman_server.domain.codec import moment, traffic_to_message
from pointsman_server.domain.errors import TrafficNotFound
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports.history import RouteHistory
from pointsman_server.ports.store import RouteStore
from pointsman_server.reads.resolver import Resolver
from pointsman_server.rpc import convert, pages
from pointsman_server.rpc.call import current_call
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
        intent = convert.intent(request, current_call())
        change = self._committer.set_traffic(convert.set_traffic(request), intent)
        outcome = await self._writes.measured("set_traffic", change)
        traffic = traffic_to_message(outcome.traffic) if outcome.traffic else None
        return pb.SetTrafficResponse(traffic=traffic, revision=outcome.revision)

    async def get(self, request: pb.GetTrafficRequest) -> pb.GetTrafficResponse:
        key = convert.family_from_message(request)
        snapshot = await self._load(key, request.as_of if request.HasField("as_of") else None)
        traffic = snapshot.family.traffic
        if traffic is None:
            raise TrafficNotFound(str(key), snapshot.as_of, snapshot.epoch)
        return pb.GetTrafficResponse(traffic=traffic_to_message(traffic), as_of_revision=snapshot.as_of)

    async def list(self, request: pb.ListTrafficRequest) -> pb.ListTrafficResponse:
        traffic = await self._store.list_traffic(pages.traffic_query(request))
        return await pages.list_traffic_response(request, traffic, self._fair_share)

    async def delete(self, request: pb.DeleteTrafficRequest) -> pb.DeleteTrafficResponse:
        intent = convert.intent(request, current_call())
        change = self._committer.delete_traffic(convert.delete_traffic(request), intent)
        outcome = await self._writes.measured("delete_traffic", change)
        return pb.DeleteTrafficResponse(revision=outcome.revision)

    async def _load(self, key: RouteKey, as_of: route_pb2.AsOf | None) -> Snapshot:
        if as_of is None:
            return (await self._resolver.resolve(key, fully_consistent=True)).snapshot
        by_time = as_of.WhichOneof("moment") == "time"
        revision = await self._history.revision_at(moment(as_of.time)) if by_time else as_of.revision
        (snapshot,) = await self._history.load_as_of([key], revision)
        return snapshot
