"""Commit and Revert: who asks, what is counted, and where the changes of an answer come from."""

from typing import Any, cast

import pytest
from google.protobuf.duration_pb2 import Duration

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.auth.permissions import Permissions, Policy
from pointsman_server.domain.access_errors import Forbidden
from pointsman_server.domain.codec import key_to_message
from pointsman_server.domain.errors import ChangedSince, MutationsRefused, RequestIdReused
from pointsman_server.domain.grants import parse_grant
from pointsman_server.domain.identity import Credential, Identity, Scope
from pointsman_server.domain.routes import HEARTBEAT, RouteKey
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

    def __init__(self, permissions: Permissions | None = None) -> None:
        self.store = MemoryStore()
        self.metrics = Metrics()
        committer = GroupCommitter(self.store, MemoryCache(), lambda _: None)
        self.methods = ChangeSetMethods(
            committer, self.store, permissions, usage_methods(), WriteMeter(self.metrics), FairShare()
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


# Revert


def updating(*versions: str, url: str = "https://new.internal", **more: Any) -> pb.CommitRequest:
    keys = [RouteKey("team-a", "payments", "prod", version) for version in versions]
    return pb.CommitRequest(
        mutations=[pb.Mutation(update=pb.UpdateRequest(key=key_to_message(key), url=url)) for key in keys], **more
    )


async def test_a_revert_is_answered_and_counted_as_one_write(scene: Scene) -> None:
    await scene.methods.commit(creating(2))
    done = await scene.methods.commit(updating("v0", "v1"))

    response = await scene.methods.revert(pb.RevertRequest(change_set_id=done.change_set_id, reason="why"))

    assert (response.change_set_id, response.revision) == (5, 6)
    assert [change.reason for change in response.changes] == ["why", "why"]
    assert {route.url for route in scene.store.routes.values()} == {URL}
    labels = {"action": "revert", "outcome": "ok"}
    assert scene.metrics.registry.get_sample_value("pointsman_write_requests_total", labels) == 1


async def test_a_retried_revert_is_answered_from_the_history(scene: Scene) -> None:
    done = await scene.methods.commit(creating(2))
    request = pb.RevertRequest(change_set_id=done.change_set_id, request_id="id")
    first = await scene.methods.revert(request)
    await scene.methods.commit(creating(2))

    assert await scene.methods.revert(request) == first
    assert len(scene.store.routes) == 2


async def test_a_dry_revert_changes_nothing_and_leaves_its_id(scene: Scene) -> None:
    done = await scene.methods.commit(creating(2))
    request = pb.RevertRequest(change_set_id=done.change_set_id, request_id="id", dry_run=True)
    dry = await scene.methods.revert(request)
    assert (dry.change_set_id, dry.revision, len(scene.store.routes)) == (3, 2, 2)

    request.dry_run = False
    assert [change.kind for change in (await scene.methods.revert(request)).changes] == [
        change.kind for change in dry.changes
    ]


async def test_what_was_changed_since_is_told_with_its_actor(scene: Scene) -> None:
    done = await scene.methods.commit(creating(2))
    await scene.methods.commit(updating("v1", reason="urgent"))

    with pytest.raises(ChangedSince) as caught:
        await scene.methods.revert(pb.RevertRequest(change_set_id=done.change_set_id))

    (violation,) = caught.value.violations
    assert violation.field == "team-a/payments/prod/v1"
    assert "by anonymous at" in violation.description
    assert violation.description.endswith("revision 3: urgent")
    # It is not the internal error that the decision raises.
    assert caught.value.__cause__ is None


async def test_of_heartbeats_there_is_nothing_to_undo(scene: Scene) -> None:
    await scene.methods.commit(creating(1))
    beat = pb.Mutation(create=pb.CreateRequest(key=key_to_message(HEARTBEAT), url=URL))
    done = await scene.methods.commit(pb.CommitRequest(mutations=[beat]))

    response = await scene.methods.revert(pb.RevertRequest(change_set_id=done.change_set_id))

    assert response == pb.RevertResponse(revision=2)
    assert HEARTBEAT in scene.store.routes


WHERE = Scope("team-a", "prod")


@pytest.mark.parametrize(
    ("grants", "told"),
    [
        (["writer:team-a"], None),
        (["reader:team-a"], Scope("", "")),
        (["auditor:team-a"], WHERE),
        ([], Scope("", "")),
    ],
)
async def test_a_revert_needs_the_permission_to_write_and_tells_where_to_who_may_know(grants, told) -> None:
    scene = Scene(Permissions(Policy))
    call = begin_call(cast("Any", CallContext()))
    await scene.methods.commit(creating(1))
    call.identity = Identity("key:ci", Credential.API_KEY, tuple(map(parse_grant, grants)))
    request = pb.RevertRequest(change_set_id=1)

    if told is None:
        assert (await scene.methods.revert(request)).changes[0].actor == "key:ci"
        return
    with pytest.raises(Forbidden) as caught:
        await scene.methods.revert(request)
    assert caught.value.metadata == {"permission": "routes.write", "tenant": told.tenant, "env": told.env}
    assert len(scene.store.routes) == 1
