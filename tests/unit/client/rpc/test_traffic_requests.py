"""traffic_requests: what is unset stays unset on the wire."""

from datetime import timedelta

import pytest

from pointsman import (
    Activate,
    Create,
    Deactivate,
    Delete,
    DeleteTraffic,
    FamilyKey,
    InvalidArgument,
    Mutation,
    RouteKey,
    SetTraffic,
    Update,
)
from pointsman.memory import Floor
from pointsman.results import Consistency
from pointsman.rpc import traffic_requests as build

KEY = "a/b/c/d"
FAMILY = "a/b/c"


def test_a_select_has_a_moment_only_if_one_is_meant() -> None:
    plain = build.select(FAMILY, "u", Floor(), Consistency.MINIMIZE_LATENCY, None)
    assert not plain.HasField("as_of")
    assert build.select(FAMILY, "u", Floor(), Consistency.MINIMIZE_LATENCY, 0).as_of.HasField("revision")


@pytest.mark.parametrize(("key", "version"), [(FAMILY, ""), (KEY, "d"), (FamilyKey("a", "b", "c"), "")])
def test_explain_is_of_a_resolve_where_there_is_a_version(key: str | FamilyKey, version: str) -> None:
    request = build.explain(key, "", "")
    assert (request.tenant, request.service, request.env, request.version) == ("a", "b", "c", version)
    assert build.explain(RouteKey.parse(KEY), "", "").version == "d"


@pytest.mark.parametrize(
    ("mutation", "field"),
    [
        (Create(KEY, "https://x"), "create"),
        (Update(KEY, labels={}), "update"),
        (Activate(KEY), "activate"),
        (Deactivate(KEY, if_unused_for=timedelta(minutes=1)), "deactivate"),
        (Delete(KEY, if_unused_for=timedelta(minutes=1)), "delete"),
        (SetTraffic(FAMILY, {"v1": 10_000}), "set_traffic"),
        (DeleteTraffic(FAMILY), "delete_traffic"),
    ],
)
def test_a_mutation_is_the_request_of_its_method_without_id_and_reason(mutation: Mutation, field: str) -> None:
    message = build.mutation_message(mutation)
    assert message.WhichOneof("mutation") == field
    request = getattr(message, field)
    assert (request.request_id, request.reason) == ("", "")


def test_a_revert_names_a_change_set_or_a_range() -> None:
    one = build.revert(7, False, False, "", "", "")
    assert (one.change_set_id, one.first_revision, one.last_revision) == (7, 0, 0)
    many = build.revert((7, 9), True, True, "e", "r", "why")
    assert (many.change_set_id, many.first_revision, many.last_revision) == (0, 7, 9)
    assert (many.force, many.dry_run, many.epoch, many.request_id, many.reason) == (True, True, "e", "r", "why")


def test_the_field_of_a_mutation_is_named_with_its_number() -> None:
    with pytest.raises(InvalidArgument) as caught:
        build.commit([Delete(KEY), Create(KEY, "\ud800")], False, "", "")
    assert [violation.field for violation in caught.value.violations] == ["mutations[1].url"]
