"""Explain: what is told of each layer, and that nothing in any of them is changed."""

from typing import Any, cast

import pytest
from google.protobuf.duration_pb2 import Duration

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import selection_pb2
from pointsman_server.domain.codec import change_to_message, key_to_bytes, route_to_message, traffic_to_message
from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.identity import ANONYMOUS
from pointsman_server.domain.routes import RouteKey
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.ports.store import Intent
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.rpc.call import begin_call
from pointsman_server.rpc.methods.explain import ExplainMethod
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.mutations import Create, Deactivate, SetTraffic, Update
from tests.support.call_context import CallContext
from tests.support.fakes import EPOCH, ManualClock, MemoryCache, MemoryStore

FAMILY = RouteKey("team-a", "payments", "prod", "")
V1, V2 = FAMILY._replace(version="v1"), FAMILY._replace(version="v2")
URL = "https://payments.internal"
LOCAL, REDIS, POSTGRES = pb.Provenance.SOURCE_LOCAL, pb.Provenance.SOURCE_REDIS, pb.Provenance.SOURCE_POSTGRES
INTENT = Intent("jwt:ann", "because")


class World:
    """A server without readers: what is in a cache was put there by a test."""

    def __init__(self) -> None:
        self.now = ManualClock()
        self.store, self.cache = MemoryStore(), MemoryCache(self.now)
        self.local = LocalCache(size=10, ttl=60, negative_ttl=60, now=self.now)
        self.method = ExplainMethod(self.store, self.cache, self.local, None)
        # Its caches are others: those of the world hold what is put there.
        self.committer = GroupCommitter(self.store, MemoryCache(), lambda _snapshots: None)

    async def create(self, *keys: RouteKey, active: bool = True) -> None:
        for key in keys:
            await self.committer.create(Create(key, URL, {}, active), INTENT)

    async def divide(self, **weights: int) -> None:
        targets = tuple(Target(version, weight) for version, weight in weights.items())
        await self.committer.set_traffic(SetTraffic(FAMILY, Division(targets)), INTENT)

    async def hold(self, key: RouteKey) -> None:
        """Put what the store has into both caches."""
        (snapshot,) = await self.store.load([key])
        self.local.put(snapshot, self.now())
        await self.cache.get([key], "filler")
        await self.cache.fill([snapshot], "filler")

    async def explain(self, key: RouteKey = V1, sticky_key: str = "", subject: str = "") -> pb.ExplainResponse:
        request = pb.ExplainRequest(
            tenant=key.tenant,
            service=key.service,
            env=key.env,
            version=key.version,
            sticky_key=sticky_key,
            subject=subject,
        )
        return await self.method.explain(request)


@pytest.fixture
def world() -> World:
    begin_call(cast("Any", CallContext())).identity = ANONYMOUS
    return World()


def told(response: pb.ExplainResponse) -> list[tuple[int, bool, int, int]]:
    return [(layer.source, layer.held, layer.revision, layer.as_of_revision) for layer in response.layers]


async def test_a_resolve_is_explained_with_its_route_its_last_change_and_the_store_alone(world) -> None:
    await world.create(V1, V2)

    response = await world.explain()

    assert response.route == route_to_message(world.store.routes[V1])
    assert (response.as_of_revision, response.epoch) == (2, EPOCH)
    assert not response.HasField("choice")
    assert not response.HasField("traffic")
    assert response.last_change == change_to_message(world.store.changes[0])
    assert (response.last_change.actor, response.last_change.reason) == ("jwt:ann", "because")
    assert told(response) == [(LOCAL, False, 0, 0), (REDIS, False, 0, 0), (POSTGRES, True, 1, 2)]
    assert [layer.HasField("age") for layer in response.layers] == [False, False, True]
    assert response.permission.allowed


async def test_what_caches_hold_is_told_with_its_revision_and_age_though_it_is_older(world) -> None:
    await world.create(V1)
    await world.hold(V1)
    world.now.advance(7)
    await world.committer.update(Update(V1, "https://new.internal"), INTENT)

    response = await world.explain()

    assert told(response) == [(LOCAL, True, 1, 1), (REDIS, True, 1, 1), (POSTGRES, True, 2, 2)]
    assert [layer.age for layer in response.layers] == [Duration(seconds=7), Duration(seconds=7), Duration()]
    assert response.route.url == "https://new.internal"


async def test_absence_is_held_too(world) -> None:
    await world.create(V2)
    await world.hold(V1)

    response = await world.explain()

    assert told(response) == [(LOCAL, True, 0, 1), (REDIS, True, 0, 1), (POSTGRES, True, 0, 1)]
    assert response.status.code == 5
    assert "no route team-a/payments/prod/v1" in response.status.message
    assert not response.HasField("last_change")


async def test_an_inactive_route_is_a_status(world) -> None:
    await world.create(V1, active=False)
    assert (await world.explain()).status.message == "route team-a/payments/prod/v1 is not active: activate it first"


async def test_a_select_is_explained_with_its_choice_and_the_traffic(world) -> None:
    await world.create(V1, V2)
    await world.divide(v1=0, v2=10_000)
    await world.hold(FAMILY)

    response = await world.explain(FAMILY, "alice")

    assert response.route == route_to_message(world.store.routes[V2])
    assert response.choice == selection_pb2.Choice(rule="RULE_SPLIT", version="v2", traffic_revision=3)
    assert response.traffic == traffic_to_message(world.store.traffic[FAMILY])
    assert response.last_change == change_to_message(world.store.changes[-1])
    assert told(response) == [(LOCAL, True, 3, 3), (REDIS, True, 3, 3), (POSTGRES, True, 3, 3)]


async def test_the_traffic_is_told_for_a_version_too(world) -> None:
    await world.create(V1, V2)
    await world.divide(v2=10_000)

    response = await world.explain(V1)

    assert response.traffic.targets[0].version == "v2"
    # Of the version alone: the traffic was changed later.
    assert response.last_change.revision == 1


async def test_the_only_active_version_is_chosen_and_several_are_ambiguous(world) -> None:
    await world.create(V1)
    response = await world.explain(FAMILY)
    assert response.choice == selection_pb2.Choice(rule="RULE_ONLY_ACTIVE", version="v1")

    await world.create(V2)
    response = await world.explain(FAMILY)
    assert "several versions of team-a/payments/prod are active: v1,v2" in response.status.message
    assert not response.HasField("choice")

    await world.committer.deactivate(Deactivate(V1), INTENT)
    await world.committer.deactivate(Deactivate(V2), INTENT)
    response = await world.explain(FAMILY)
    assert "no version of team-a/payments/prod is active" in response.status.message
    assert response.last_change.revision == 4


async def test_nothing_in_a_cache_is_changed_by_the_question(world) -> None:
    await world.create(V1)
    await world.explain()
    await world.explain(FAMILY)

    assert world.cache.entries == {}
    assert world.local.find(key_to_bytes(V1)) is None
    assert [call for call, _ in world.cache.journal] == []


async def test_what_keeps_redis_from_answering_is_told(world) -> None:
    await world.create(V1)
    await world.cache.get([V1], "loader")
    assert (await world.explain()).layers[1].problem == "it is being loaded"

    await world.hold(V2)
    await world.cache.mark([V2], "writer")
    layer = (await world.explain(V2)).layers[1]
    assert layer.held
    assert not layer.HasField("age")
    assert layer.problem.startswith("a write of it is under way")

    world.cache.down = True
    layer = (await world.explain()).layers[1]
    assert (layer.held, layer.problem) == (False, "Redis cannot be asked now")


async def test_without_the_store_the_caches_are_told(world) -> None:
    await world.create(V1)
    await world.hold(V1)
    world.store.failure = StoreUnavailable()

    response = await world.explain()

    assert response.status.code == 14
    assert told(response) == [(LOCAL, True, 1, 1), (REDIS, True, 1, 1), (POSTGRES, False, 0, 0)]
    assert response.layers[2].problem == "the store cannot be reached"


async def test_an_entry_that_the_feed_follows_is_as_of_the_last_change_that_it_has_brought(world) -> None:
    await world.create(V1)
    await world.hold(V1)
    world.local.advance(40)
    assert (await world.explain()).layers[0].as_of_revision == 40
