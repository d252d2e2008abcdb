"""Commits on the wire: what they are decoded to, and how much of their changes fits into a response."""

from datetime import timedelta

import pytest
from google.protobuf.duration_pb2 import Duration

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey as KeyMessage
from pointsman.v1.traffic_methods_pb2 import DeleteTrafficRequest, SetTrafficRequest
from pointsman.v1.traffic_pb2 import TrafficTarget
from pointsman_server.domain.codec import change_to_message
from pointsman_server.domain.errors import RouteInUse
from pointsman_server.domain.routes import Change, ChangeKind, Route, RouteKey
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.ports.store import ChangeQuery, Outcome, Step
from pointsman_server.rpc import change_sets
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.writes.commit import FIELDS, Commit
from pointsman_server.writes.mutations import (
    Activate,
    Create,
    Deactivate,
    Delete,
    DeleteTraffic,
    SetTraffic,
    Update,
)
from tests.support.fakes import BIRTH, EPOCH

KEY = RouteKey("team-a", "payments", "prod", "v1")
MESSAGE = KeyMessage(tenant="team-a", service="payments", env="prod", version="v1")
NAMES = {"tenant": "team-a", "service": "payments", "env": "prod"}
URL = "https://payments.internal"
MUTATIONS = [
    pb.Mutation(create=pb.CreateRequest(key=MESSAGE, url=URL, labels={"a": "b"}, active=False)),
    pb.Mutation(update=pb.UpdateRequest(key=MESSAGE, url=URL, expected_revision=2)),
    pb.Mutation(activate=pb.ActivateRequest(key=MESSAGE, exclusive=True)),
    pb.Mutation(deactivate=pb.DeactivateRequest(key=MESSAGE, if_unused_for=Duration(seconds=60))),
    pb.Mutation(delete=pb.DeleteRequest(key=MESSAGE, expected_revision=5)),
    pb.Mutation(
        set_traffic=SetTrafficRequest(**NAMES, targets=[TrafficTarget(version="v1", weight=10_000)], fallbacks=["v2"])
    ),
    pb.Mutation(delete_traffic=DeleteTrafficRequest(**NAMES, expected_revision=7)),
]


def change(revision: int, labels: int = 1) -> Change:
    route = Route(KEY, URL, True, {f"label-{number}": "x" * 250 for number in range(labels)}, revision, BIRTH, BIRTH)
    moment = BIRTH + timedelta(seconds=revision)
    return Change(revision, "id", ChangeKind.UPDATED, KEY, route, route, "ann", "why", "", moment, EPOCH)


def test_each_mutation_is_decoded_to_its_command() -> None:
    refusal = RouteInUse(str(KEY), ["cart"])
    request = pb.CommitRequest(mutations=MUTATIONS, dry_run=True)
    division = Division((Target("v1", 10_000),), ("v2",))
    assert change_sets.commit(request, {3: refusal}) == Commit(
        [
            Create(KEY, URL, {"a": "b"}, active=False),
            Update(KEY, URL, None, 2),
            Activate(KEY, exclusive=True),
            Deactivate(KEY, 0, refusal),
            Delete(KEY, 5),
            SetTraffic(KEY.family_key, division),
            DeleteTraffic(KEY.family_key, 7),
        ],
        dry_run=True,
    )


def test_every_kind_of_mutation_has_a_command() -> None:
    fields = {field.name for field in pb.Mutation.DESCRIPTOR.fields}
    assert {mutation.WhichOneof("mutation") for mutation in MUTATIONS} == set(FIELDS.values()) == fields


def test_only_mutations_with_a_condition_are_looked_up() -> None:
    assert change_sets.conditional(pb.CommitRequest(mutations=MUTATIONS)) == {3: MUTATIONS[3].deactivate}


def test_the_changes_of_a_replay_are_read_by_their_revisions() -> None:
    assert change_sets.query_of(Outcome(None, 30, change_set_id=17, change_count=3)) == ChangeQuery(
        after_revision=16, before_revision=20, limit=3
    )
    assert change_sets.query_of(Outcome(None, 30, change_set_id=1, change_count=50_000)).limit == 10_000


async def test_an_outcome_is_answered_with_its_steps_and_changes() -> None:
    changes = [change(17), change(18)]
    outcome = Outcome(None, 18, None, [Step(17, 2), Step(0, 0)], 17, 2, changes)
    assert await change_sets.commit_response(outcome, changes, FairShare()) == pb.CommitResponse(
        mutations=[pb.CommittedMutation(first_revision=17, change_count=2), pb.CommittedMutation()],
        changes=map(change_to_message, changes),
        change_set_id=17,
        revision=18,
    )


async def test_changes_beyond_four_megabytes_are_counted() -> None:
    changes = [change(number, labels=20) for number in range(1, 1_001)]
    outcome = Outcome(None, 1_000, None, [Step(number, 1) for number in range(1, 1_001)], 1, 1_000, changes)
    response = await change_sets.commit_response(outcome, changes, FairShare())
    assert 3_900_000 < response.ByteSize() <= 4_000_000
    assert len(response.changes) + response.omitted_change_count == 1_000
    assert [each.revision for each in response.changes] == list(range(1, len(response.changes) + 1))


@pytest.mark.parametrize("kept", [0, 2])
async def test_changes_that_the_history_has_no_more_are_counted(kept: int) -> None:
    changes = [change(17 + number) for number in range(kept)]
    outcome = Outcome(None, 20, None, [Step(17, 3)], 17, 3)
    response = await change_sets.commit_response(outcome, changes, FairShare())
    assert (len(response.changes), response.omitted_change_count) == (kept, 3 - kept)
