"""writes.mutations: what each mutation decides."""

from collections.abc import Callable, Sequence

import pytest

from pointsman_server.domain.errors import InvalidField, RevisionMismatch, RouteExists, RouteInUse, RouteNotFound
from pointsman_server.domain.routes import ChangeKind, Draft, Route, RouteKey
from pointsman_server.writes.mutations import (
    Activate,
    Create,
    Deactivate,
    Delete,
    Update,
    decide_activate,
    decide_create,
    decide_deactivate,
    decide_delete,
    decide_update,
)
from pointsman_server.writes.overlay import State
from tests.support.fakes import BIRTH

V1, V2, V3 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2", "v3"))
URL, NEW = "https://old.internal", "https://new.internal"
LABELS = {"tier": "gold"}
IN_USE = RouteInUse(str(V1), ["jwt:cart 2026-11-20T14:00:03Z"])


def route(key: RouteKey = V1, *, active: bool = True, revision: int = 5) -> Route:
    return Route(key, URL, active, LABELS, revision, BIRTH, BIRTH)


def seen(found: Route | None = None, *siblings: Route) -> State:
    return State(found, siblings, 9, "epoch")


# Create


@pytest.mark.parametrize("active", [True, False])
def test_create_makes_the_route_that_was_asked_for(active: bool) -> None:
    drafts = decide_create(Create(V1, NEW, LABELS, active), seen(None, route(V2)))
    assert drafts == [Draft(ChangeKind.CREATED, V1, None, NEW, active, LABELS)]


def test_created_routes_are_active_unless_asked_otherwise() -> None:
    assert Create(V1, NEW, {}).active


@pytest.mark.parametrize("active", [True, False])
def test_create_refuses_a_taken_key_with_its_revision(active: bool) -> None:
    with pytest.raises(RouteExists) as refused:
        decide_create(Create(V1, NEW, {}), seen(route(active=active)))
    assert refused.value.metadata == {"key": str(V1), "revision": "5"}


# Update


@pytest.mark.parametrize("active", [True, False])
@pytest.mark.parametrize(
    ("url", "labels", "becomes"),
    [
        (NEW, None, (NEW, LABELS)),
        (None, {"a": "b"}, (URL, {"a": "b"})),
        (None, {}, (URL, {})),
        (NEW, {}, (NEW, {})),
        (NEW, LABELS, (NEW, LABELS)),
    ],
)
def test_update_changes_what_is_set_and_leaves_the_rest(
    active: bool, url: str | None, labels: dict[str, str] | None, becomes: tuple[str, dict[str, str]]
) -> None:
    before = route(active=active)
    drafts = decide_update(Update(V1, url, labels), seen(before))
    assert drafts == [Draft(ChangeKind.UPDATED, V1, before, becomes[0], active, becomes[1])]


@pytest.mark.parametrize(("url", "labels"), [(URL, None), (None, LABELS), (URL, LABELS), (None, None)])
def test_update_to_what_already_is_makes_no_change(url: str | None, labels: dict[str, str] | None) -> None:
    assert decide_update(Update(V1, url, labels), seen(route())) == []


def test_update_of_an_absent_route_is_refused() -> None:
    with pytest.raises(RouteNotFound):
        decide_update(Update(V1, NEW), seen())


@pytest.mark.parametrize("labels", [None, {}, LABELS])
def test_upsert_creates_an_absent_route_active(labels: dict[str, str] | None) -> None:
    drafts = decide_update(Update(V1, NEW, labels, allow_missing=True), seen())
    assert drafts == [Draft(ChangeKind.CREATED, V1, None, NEW, active=True, labels=labels or {})]


def test_upsert_without_a_url_cannot_create() -> None:
    with pytest.raises(InvalidField, match="url: is required to create the route"):
        decide_update(Update(V1, None, LABELS, allow_missing=True), seen())


@pytest.mark.parametrize("active", [True, False])
def test_upsert_of_a_present_route_is_an_update_and_leaves_its_activity(active: bool) -> None:
    before = route(active=active)
    drafts = decide_update(Update(V1, NEW, allow_missing=True), seen(before))
    assert drafts == [Draft(ChangeKind.UPDATED, V1, before, NEW, active, LABELS)]


# Activate and deactivate


def test_activate_switches_an_inactive_route_on_and_changes_nothing_else() -> None:
    before = route(active=False)
    drafts = decide_activate(Activate(V1), seen(before, route(V2)))
    assert drafts == [Draft(ChangeKind.ACTIVATED, V1, before, URL, True, LABELS)]


def test_activating_an_active_route_makes_no_change() -> None:
    assert decide_activate(Activate(V1), seen(route(), route(V2))) == []


def test_exclusive_activation_comes_first_then_every_active_sibling_goes_inactive() -> None:
    before, sibling, idle = route(active=False), route(V2, revision=6), route(V3, active=False)
    drafts = decide_activate(Activate(V1, exclusive=True), seen(before, idle, sibling))
    assert drafts == [
        Draft(ChangeKind.ACTIVATED, V1, before, URL, True, LABELS),
        Draft(ChangeKind.DEACTIVATED, V2, sibling, URL, False, LABELS),
    ]


def test_exclusive_activation_of_an_active_route_deactivates_its_siblings_only() -> None:
    drafts = decide_activate(Activate(V1, exclusive=True), seen(route(), route(V2), route(V3)))
    assert [(draft.kind, draft.key) for draft in drafts] == [
        (ChangeKind.DEACTIVATED, V2),
        (ChangeKind.DEACTIVATED, V3),
    ]


def test_exclusive_activation_of_the_only_active_route_makes_no_change() -> None:
    assert decide_activate(Activate(V1, exclusive=True), seen(route(), route(V2, active=False))) == []


def test_deactivate_switches_an_active_route_off_and_changes_nothing_else() -> None:
    before = route()
    drafts = decide_deactivate(Deactivate(V1), seen(before, route(V2)))
    assert drafts == [Draft(ChangeKind.DEACTIVATED, V1, before, URL, False, LABELS)]


def test_deactivating_an_inactive_route_makes_no_change() -> None:
    assert decide_deactivate(Deactivate(V1), seen(route(active=False))) == []


# Delete


@pytest.mark.parametrize("active", [True, False])
def test_delete_removes_a_route_active_or_not(active: bool) -> None:
    before = route(active=active)
    assert decide_delete(Delete(V1), seen(before, route(V2))) == [Draft(ChangeKind.DELETED, V1, before)]


# What they share

DECISIONS: list[Callable[[int, State], Sequence[Draft]]] = [
    lambda expected, found: decide_update(Update(V1, NEW, expected_revision=expected), found),
    lambda expected, found: decide_activate(Activate(V1, expected), found),
    lambda expected, found: decide_deactivate(Deactivate(V1, expected), found),
    lambda expected, found: decide_delete(Delete(V1, expected), found),
]


@pytest.mark.parametrize(
    "decide",
    [
        lambda found: decide_deactivate(Deactivate(V1, refusal=IN_USE), found),
        lambda found: decide_delete(Delete(V1, refusal=IN_USE), found),
    ],
    ids=["deactivate", "delete"],
)
def test_a_route_in_use_stays_but_its_absence_is_told_first(decide) -> None:
    with pytest.raises(RouteInUse):
        decide(seen(route()))
    with pytest.raises(RouteNotFound):
        decide(seen())


def test_an_inactive_route_is_inactive_even_if_it_is_read() -> None:
    assert decide_deactivate(Deactivate(V1, refusal=IN_USE), seen(route(active=False))) == []


every_decision = pytest.mark.parametrize("decide", DECISIONS, ids=["update", "activate", "deactivate", "delete"])
both = pytest.mark.parametrize("active", [True, False])


@every_decision
def test_an_absent_route_is_refused_with_the_revision_as_of_which_it_is_absent(
    decide: Callable[[int, State], Sequence[Draft]],
) -> None:
    for expected in (0, 5):
        with pytest.raises(RouteNotFound) as refused:
            decide(expected, seen(None, route(V2)))
        assert refused.value.metadata == {"key": str(V1), "revision": "9", "epoch": "epoch"}


@every_decision
@both
def test_another_revision_than_expected_is_refused_even_when_there_is_nothing_to_change(
    decide: Callable[[int, State], Sequence[Draft]], active: bool
) -> None:
    for expected in (4, 6, 9):
        with pytest.raises(RevisionMismatch) as refused:
            decide(expected, seen(route(active=active)))
        assert refused.value.metadata == {"key": str(V1), "expected_revision": str(expected), "revision": "5"}


@every_decision
@both
def test_the_expected_revision_is_as_good_as_none(
    decide: Callable[[int, State], Sequence[Draft]], active: bool
) -> None:
    assert decide(5, seen(route(active=active))) == decide(0, seen(route(active=active)))
