"""Serves SetTraffic, GetTraffic, ListTraffic and DeleteTraffic."""

from pointsman.v1 import traffic_methods_pb2 as pb
from pointsman_server.domain.codec import traffic_to_message
from pointsman_server.domain.errors import TrafficNotFound
from pointsman_server.ports.history import RouteHistory
from pointsman_server.ports.store import RouteStore
from pointsman_server.reads.resolver import Resolver
from pointsman_server.rpc import convert, pages
from pointsman_server.rpc.call import current_call
from pointsman_server.rpc.methods.as_of import load
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
        snapshot = await load(key, request, self._resolver, self._history)
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
