"""Commit: who asks, what is counted, and where the changes of its answer come from."""

from typing import Any, cast

import pytest
from google.protobuf.duration_pb2 import Duration

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import key_to_message
from pointsman_server.domain.errors import MutationsRefused, RequestIdReused
from pointsman_server.domain.routes import RouteKey
from pointsman_server.rpc.call import begin_call
from pointsman_server.rpc.methods.change_sets import ChangeSetMethods
from pointsman_server.rpc.methods.write_meter import WriteMeter
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.writes.group_commit import GroupCommitter
from tests.support.call_context import CallContext
from tests.support.fakes import MemoryCache, MemoryStore
from tests.support.receipts import usage_methods

URL = "https://payments.internal"


class Scene:
    """The methods on fakes."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.metrics = Metrics()
        committer = GroupCommitter(self.store, MemoryCache(), lambda _: None)
        self.methods = ChangeSetMethods(
            committer, self.store, None, usage_methods(), WriteMeter(self.metrics), FairShare()
        )

    def count(self, outcome: str) -> float | None:
        labels = {"action": "commit", "outcome": outcome}
        return self.metrics.registry.get_sample_value("pointsman_write_requests_total", labels)


@pytest.fixture
def scene() -> Scene:
    begin_call(cast("Any", CallContext(("x-request-id", "mine"))))
    return Scene()


def creating(count: int, **more: Any) -> pb.CommitRequest:
    keys = [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(count)]
    return pb.CommitRequest(
        mutations=[pb.Mutation(create=pb.CreateRequest(key=key_to_message(key), url=URL)) for key in keys], **more
    )


@pytest.mark.parametrize("count", [3, 300], ids=["few", "in a thread"])
async def test_a_commit_is_answered_and_counted_as_one_write(scene: Scene, count: int) -> None:
    response = await scene.methods.commit(creating(count, reason="why", request_id="id"))
    assert [each.first_revision for each in response.mutations] == list(range(1, count + 1))
    assert (response.change_set_id, response.revision, len(response.changes)) == (1, count, count)
    assert {(each.reason, each.request_id, each.actor) for each in scene.store.changes} == {("why", "id", "anonymous")}
    assert (scene.count("ok"), scene.count("refused")) == (1, 0)


async def test_the_changes_of_a_replay_come_from_the_history(scene: Scene) -> None:
    first = await scene.methods.commit(creating(3, request_id="id"))
    assert await scene.methods.commit(creating(3, request_id="id")) == first
    assert len(scene.store.changes) == 3


async def test_a_dry_run_has_the_id_of_its_commit_and_uses_it_not_up(scene: Scene) -> None:
    dry = await scene.methods.commit(creating(3, request_id="id", dry_run=True))
    assert (scene.store.changes, dry.revision, len(dry.changes)) == ([], 0, 3)
    wet = await scene.methods.commit(creating(3, request_id="id"))
    assert await scene.methods.commit(creating(3, request_id="id", dry_run=True)) == wet
    with pytest.raises(RequestIdReused):
        await scene.methods.commit(creating(2, request_id="id", dry_run=True))


async def test_a_refused_commit_is_counted_as_such(scene: Scene) -> None:
    request = creating(2)
    request.mutations.append(request.mutations[0])
    with pytest.raises(MutationsRefused, match=r"mutations\[2\]: route team-a/payments/prod/v0 exists"):
        await scene.methods.commit(request)
    assert scene.store.changes == []
    assert (scene.count("ok"), scene.count("refused")) == (0, 1)


async def test_a_route_that_is_in_use_refuses_the_commit_if_it_asks_for_that(scene: Scene) -> None:
    await scene.methods.commit(creating(2))
    key = key_to_message(RouteKey("team-a", "payments", "prod", "v1"))
    request = pb.CommitRequest(
        mutations=[
            pb.Mutation(deactivate=pb.DeactivateRequest(key=key)),
            pb.Mutation(delete=pb.DeleteRequest(key=key, if_unused_for=Duration(seconds=10**9))),
        ]
    )
    with pytest.raises(MutationsRefused) as refused:
        await scene.methods.commit(request)
    assert [(index, error.reason) for index, error in refused.value.refusals] == [(1, "USAGE_NOT_COUNTED")]
