"""Families as of every revision, and what a selection from them must answer."""

from pointsman.selection import Split
from tests.faults.traffic.families import Expected, Families
from tests.unit.faults.histories import F, route, rows_of, traffic

V0, V1, V2 = (f"{F}/v{number}" for number in range(3))
ROWS = rows_of(
    ("s1", [(V0, "CREATED", route("u0")), (V1, "CREATED", route("u1")), (f"{F}/", "TRAFFIC_SET", traffic(3000, 7000))]),
    ("s2", [(V0, "DEACTIVATED", route("u0", active=False)), (V1, "UPDATED", route("u9"))]),
    ("s3", [(V1, "DEACTIVATED", route("u9", active=False)), (V2, "CREATED", route("u2"))]),
    ("s4", [(f"{F}/", "TRAFFIC_SET", traffic(3000, 7000, fallbacks=("v0", "v2")))]),
    ("s5", [(f"{F}/", "TRAFFIC_DELETED", None)]),
    ("s6", [(V0, "ACTIVATED", route("u0"))]),
)


def answers(as_of: int, sticky_key: str) -> list[Expected]:
    return Families(ROWS).at(F, as_of).answers(sticky_key)


def test_the_split_decides_by_the_weights_of_the_revision() -> None:
    chosen = Split(F, [("v0", 3000), ("v1", 7000)], ["v0", "v1"], [], ["v0", "v1"]).choose("me")
    assert chosen
    number = int(chosen.version[1])
    assert answers(3, "me") == [Expected("chosen", f"v{number}", number + 1, f"u{number}", "SPLIT", (), 3)]


def test_an_empty_sticky_key_may_get_whatever_has_weight() -> None:
    assert [each.version for each in answers(3, "")] == ["v0", "v1"]


def test_what_is_inactive_is_passed_over() -> None:
    (answer,) = answers(5, "me")
    assert (answer.version, answer.revision, answer.url) == ("v1", 5, "u9")


def test_without_a_target_the_first_active_fallback_is_taken() -> None:
    assert [each.state for each in answers(7, "me")] == ["none"]
    assert answers(8, "me") == [Expected("chosen", "v2", 7, "u2", "FALLBACK", ("v0", "v1"), 8)]


def test_without_traffic_the_only_active_version_is() -> None:
    assert answers(9, "me") == [Expected("chosen", "v2", 7, "u2", "ONLY_ACTIVE")]
    assert [each.state for each in answers(10, "me")] == ["ambiguous"]
    assert [each.state for each in answers(0, "me")] == ["none"]


def test_a_revision_inside_of_a_change_set_of_the_family_is_torn() -> None:
    families = Families(ROWS)
    assert [bool(families.torn(F, revision)) for revision in range(11)] == [
        False, True, True, False, True, False, True, False, False, False, False,
    ]  # fmt: skip


def test_another_family_in_between_does_not_tear() -> None:
    rows = rows_of(("s1", [(V0, "CREATED", route()), ("splits/s1/prod/v0", "CREATED", route())]))
    assert Families(rows).torn(F, 1) is None
