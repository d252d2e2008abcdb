"""A commit: what it locks, what it refuses before and after, and in which order it is decided."""

import pytest

from pointsman_server.domain.errors import InvalidField, MutationsRefused
from pointsman_server.domain.routes import ChangeKind, Route, RouteKey
from pointsman_server.domain.traffic import Division, Target
from pointsman_server.ports.store import Clock, Intent, LockedState, Step
from pointsman_server.writes.commit import decide_all, scope_of
from pointsman_server.writes.ledger import Ledger
from pointsman_server.writes.mutations import (
    Activate,
    Command,
    Create,
    Deactivate,
    Delete,
    DeleteTraffic,
    SetTraffic,
    Update,
)
from pointsman_server.writes.overlay import Overlay
from tests.support.fakes import BIRTH, EPOCH

V1, V2, V3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
ORDERS = RouteKey("team-b", "orders", "prod", "v1")
FAMILY = V1.family_key
URL = "https://payments.internal"
INTENT = Intent("alice")
WHOLE = Division((Target("v2", 10_000),))


def overlay(*routes: Route) -> Overlay:
    return Overlay(Ledger(LockedState(Clock(EPOCH, 9), BIRTH, routes, [None])))


def route(key: RouteKey, revision: int = 3) -> Route:
    return Route(key, URL, True, {}, revision, BIRTH, BIRTH)


@pytest.mark.parametrize(
    ("command", "others", "divided"),
    [
        (Create(V1, URL, {}), (V1,), ()),
        (Update(V1, URL), (V1,), ()),
        (Activate(V1), (V1,), ()),
        (Activate(V1, exclusive=True), (FAMILY,), ()),
        (Deactivate(V1), (V1,), ()),
        # A family may have thousands of versions: they are not read to see whether traffic names one.
        (Delete(V1), (V1,), (FAMILY,)),
        (SetTraffic(FAMILY, WHOLE), (FAMILY,), ()),
        (DeleteTraffic(FAMILY), (), (FAMILY,)),
    ],
)
def test_families_are_locked_where_the_decision_needs_them(
    command: Command, others: tuple[RouteKey, ...], divided: tuple[RouteKey, ...]
) -> None:
    scope = scope_of([command, command], INTENT)
    assert (scope.key, scope.others, scope.divided) == (command.key, others, divided)
    assert scope.family == (FAMILY in others)


def test_the_request_id_belongs_to_the_tenant_of_the_first_mutation_and_all_keys_are_locked() -> None:
    scope = scope_of([Create(ORDERS, URL, {}), Delete(V1), Create(V2, URL, {}), DeleteTraffic(FAMILY)], INTENT)
    assert (scope.key, scope.intent, scope.others) == (ORDERS, INTENT, (ORDERS, V1, V2))
    assert scope.divided == (FAMILY,)


def test_each_mutation_sees_what_those_before_it_did() -> None:
    above = overlay(route(V1))
    steps = decide_all(
        [
            Create(V2, URL, {}),
            SetTraffic(FAMILY, WHOLE),
            Activate(V2, exclusive=True),
            Activate(V2, exclusive=True),
            Delete(V1),
            Create(V1, URL, {}),
            DeleteTraffic(FAMILY),
            Delete(V2),
        ]
    )(above)
    assert steps == [
        Step(10, 1), Step(11, 1), Step(12, 1), Step(0, 0), Step(13, 1), Step(14, 1), Step(15, 1), Step(16, 1),
    ]  # fmt: skip
    assert [each.draft.kind for each in above.applied] == [
        ChangeKind.CREATED,
        ChangeKind.TRAFFIC_SET,
        ChangeKind.DEACTIVATED,
        ChangeKind.DELETED,
        ChangeKind.CREATED,
        ChangeKind.TRAFFIC_DELETED,
        ChangeKind.DELETED,
    ]


def test_every_refused_mutation_is_named_and_the_first_decides() -> None:
    commands = [
        Create(V2, URL, {}),
        Create(V1, URL, {}),
        Update(V3, allow_missing=True, labels={}),
        SetTraffic(FAMILY, WHOLE),
        Delete(V2),
        Activate(ORDERS),
    ]
    with pytest.raises(MutationsRefused) as refused:
        decide_all(commands)(overlay(route(V1)))
    error = refused.value
    assert (error.reason, error.metadata["index"], error.metadata["revision"]) == ("ROUTE_EXISTS", "1", "3")
    assert [(index, each.reason) for index, each in error.refusals] == [
        (1, "ROUTE_EXISTS"),
        (2, "INVALID_FIELD"),
        (4, "ROUTE_IN_TRAFFIC"),
        (5, "ROUTE_NOT_FOUND"),
    ]
    assert [each.field for each in error.violations] == [
        "mutations[1]", "mutations[2].update.url", "mutations[4]", "mutations[5]",
    ]  # fmt: skip


def test_of_many_refused_mutations_the_first_sixteen_are_named() -> None:
    with pytest.raises(MutationsRefused) as refused:
        decide_all([Activate(V1)] * 1000)(overlay())
    assert [index for index, _ in refused.value.refusals] == list(range(16))


def test_malformed_fields_are_named_by_the_index_and_kind_of_their_mutation() -> None:
    with pytest.raises(InvalidField) as refused:
        scope_of([Create(V1, "nonsense", {}), Activate(V1), SetTraffic(FAMILY, Division((Target("v1", 1),)))], INTENT)
    fields = [each.field for each in refused.value.violations]
    assert fields == ["mutations[0].create.url", "mutations[2].set_traffic.targets"]
    assert scope_of([Create(V1, URL, {}), Create(V1, URL, {})], INTENT).others == (V1,)


def test_of_many_malformed_fields_the_first_are_named() -> None:
    with pytest.raises(InvalidField) as refused:
        scope_of([Create(V1, "nonsense", {})] * 1000, INTENT)
    assert len(refused.value.violations) == 16
    assert refused.value.message.endswith("; and more")
