"""The methods of traffic: what they ask of the use cases, the store and the history."""

from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any, cast

import pytest

from pointsman.v1 import traffic_methods_pb2 as pb
from pointsman.v1.route_pb2 import AsOf
from pointsman.v1.traffic_pb2 import TrafficTarget
from pointsman_server.domain.codec import timestamp, traffic_to_message
from pointsman_server.domain.errors import InvalidField, TrafficNotFound
from pointsman_server.domain.routes import Family, RouteKey, Snapshot
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.rpc.call import begin_call
from pointsman_server.rpc.methods.traffic import TrafficMethods
from pointsman_server.rpc.methods.write_meter import WriteMeter
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.writes.group_commit import GroupCommitter
from tests.support.call_context import CallContext
from tests.support.fakes import EPOCH, MemoryCache, MemoryStore

V1 = RouteKey("team-a", "payments", "prod", "v1")
NAMES = {"tenant": "team-a", "service": "payments", "env": "prod"}
MOMENT = datetime(2026, 11, 20, 14, tzinfo=UTC)


class Scene:
    """The methods on fakes; ``asked`` is what the resolver and the history were asked for."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.metrics = Metrics()
        self.asked: list[object] = []
        committer = GroupCommitter(self.store, MemoryCache(), lambda _: None)
        resolver = SimpleNamespace(resolve=self.resolve)
        history = SimpleNamespace(load_as_of=self.load_as_of, revision_at=self.revision_at)
        self.methods = TrafficMethods(
            committer, self.store, cast("Any", resolver), cast("Any", history), WriteMeter(self.metrics), FairShare()
        )

    async def resolve(self, key: RouteKey, *, fully_consistent: bool) -> Answer:
        assert fully_consistent
        (snapshot,) = await self.store.load([key])
        return Answer(snapshot, Source.POSTGRES)

    async def load_as_of(self, keys: list[RouteKey], revision: int) -> list[Snapshot]:
        self.asked.append((keys, revision))
        traffic = self.store.traffic.get(keys[0])
        return [Snapshot(keys[0], Family(keys[0], traffic, ()) if traffic else None, revision, EPOCH)]

    async def revision_at(self, moment: datetime) -> int:
        self.asked.append(moment)
        return 5

    def count(self, action: str) -> float | None:
        return self.metrics.registry.get_sample_value(
            "pointsman_write_requests_total", {"action": action, "outcome": "ok"}
        )


@pytest.fixture
def scene() -> Scene:
    begin_call(cast("Any", CallContext()))
    scene = Scene()
    scene.store.put(V1)
    return scene


def setting(*targets: tuple[str, int], **more: Any) -> pb.SetTrafficRequest:
    wanted = [TrafficTarget(version=version, weight=weight) for version, weight in targets]
    return pb.SetTrafficRequest(**NAMES, targets=wanted, **more)


async def test_what_is_set_is_answered_read_and_counted(scene: Scene) -> None:
    response = await scene.methods.set(setting(("v1", 10_000), fallbacks=["v1"], reason="why"))
    traffic = scene.store.traffic[V1.family_key]
    assert response == pb.SetTrafficResponse(traffic=traffic_to_message(traffic), revision=2)
    assert scene.store.changes[0].reason == "why"
    found = await scene.methods.get(pb.GetTrafficRequest(**NAMES))
    assert found == pb.GetTrafficResponse(traffic=response.traffic, as_of_revision=2)
    assert await scene.methods.delete(pb.DeleteTrafficRequest(**NAMES)) == pb.DeleteTrafficResponse(revision=3)
    with pytest.raises(TrafficNotFound) as absent:
        await scene.methods.get(pb.GetTrafficRequest(**NAMES))
    assert absent.value.metadata == {"key": "team-a/payments/prod", "revision": "3", "epoch": EPOCH}
    assert (scene.count("set_traffic"), scene.count("delete_traffic")) == (1, 1)


async def test_traffic_as_of_a_moment_comes_from_the_history(scene: Scene) -> None:
    traffic = scene.store.divide(V1, ("v1", 10_000))
    by_revision = await scene.methods.get(pb.GetTrafficRequest(**NAMES, as_of=AsOf(revision=0)))
    by_time = await scene.methods.get(pb.GetTrafficRequest(**NAMES, as_of=AsOf(time=timestamp(MOMENT))))
    assert by_revision == pb.GetTrafficResponse(traffic=traffic_to_message(traffic), as_of_revision=0)
    assert by_time.as_of_revision == 5
    assert scene.asked == [([V1.family_key], 0), MOMENT, ([V1.family_key], 5)]


async def test_traffic_is_listed_in_pages_that_go_on_where_one_ended(scene: Scene) -> None:
    services = ["a", "b", "c"]
    for service in services:
        scene.store.divide(V1._replace(service=service), ("v1", 10_000))
    first = await scene.methods.list(pb.ListTrafficRequest(page_size=2))
    token = first.next_page_token
    second = await scene.methods.list(pb.ListTrafficRequest(page_size=2, page_token=token))
    assert [each.service for each in (*first.traffic, *second.traffic)] == services
    assert second.next_page_token == ""
    for other in (pb.ListTrafficRequest(tenant="team-a", page_token=token), pb.ListTrafficRequest(page_token="AAAA")):
        with pytest.raises(InvalidField):
            await scene.methods.list(other)
