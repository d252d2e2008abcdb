"""keys: the name of a route and its text."""

import pytest

from pointsman import FamilyKey, InvalidArgument, RouteKey
from pointsman.keys import as_key, as_route_or_family


def test_text_and_key_are_the_same_thing() -> None:
    key = RouteKey("team-a", "payments", "prod", "v1.2_3")
    assert str(key) == "team-a/payments/prod/v1.2_3"
    assert RouteKey.parse(str(key)) == as_key(str(key)) == as_key(key) == key


def test_keys_sort_as_the_server_sorts_them() -> None:
    assert min(map(RouteKey.parse, ["b/a/a/a", "a/b/a/a"])).tenant == "a"


@pytest.mark.parametrize(
    "text", ["", "a/b/c", "a/b/c/d/e", "a/b/c/", "a/b/c/-d", "a/b/c/d\n", "a b/b/c/d", "a/" * 3 + "x" * 64]
)
def test_a_malformed_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        RouteKey.parse(text)
    assert caught.value.reason == "INVALID_FIELD"
    assert caught.value.violations


def test_the_bad_part_is_named() -> None:
    with pytest.raises(InvalidArgument) as caught:
        RouteKey.parse("a/b c/d/e")
    assert caught.value.violations[0].field == "key.service"


def test_a_family_is_the_key_without_its_version() -> None:
    family = FamilyKey.parse("team-a/payments/prod")
    assert family == RouteKey.parse("team-a/payments/prod/v2").family
    assert str(family) == "team-a/payments/prod"
    assert family.version("v2") == RouteKey.parse("team-a/payments/prod/v2")


def test_the_key_of_traffic_has_no_version_in_its_text() -> None:
    assert str(RouteKey("team-a", "payments", "prod", "")) == "team-a/payments/prod"


@pytest.mark.parametrize(
    ("text", "field"), [("team-a/payments", "key"), ("a/b/c/d", "key"), ("a//c", "key.service"), ("a/b/c d", "key.env")]
)
def test_what_is_no_family_is_refused_by_field(text: str, field: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        FamilyKey.parse(text)
    assert [violation.field for violation in caught.value.violations] == [field]


@pytest.mark.parametrize("key", [RouteKey("a", "b", "c", "d"), FamilyKey("a", "b", "c")])
def test_a_route_or_a_family_is_taken_as_a_key_and_as_text(key: RouteKey | FamilyKey) -> None:
    assert as_route_or_family(key) == key
    assert as_route_or_family(str(key)) == key


@pytest.mark.parametrize(
    ("key", "field", "problem"),
    [
        ("a/b", "key", "'a/b' must be tenant/service/env/version or tenant/service/env"),
        ("a/b/c/d/e", "key", "'a/b/c/d/e' must be tenant/service/env/version or tenant/service/env"),
        ("a/b/c/", "key.version", "'' must be 1 to 63 characters"),
        ("a/b c/d", "key.service", "'b c' must be 1 to 63 characters"),
        (RouteKey("a b", "c", "d", "e"), "key.tenant", "'a b' must be 1 to 63 characters"),
        (FamilyKey("a", "b", ""), "key.env", "'' must be 1 to 63 characters"),
    ],
)
def test_what_is_neither_a_route_nor_a_family_is_refused(
    key: RouteKey | FamilyKey | str, field: str, problem: str
) -> None:
    with pytest.raises(InvalidArgument) as caught:
        as_route_or_family(key)
    [violation] = caught.value.violations
    assert (violation.field, caught.value.reason) == (field, "INVALID_FIELD")
    assert violation.description.startswith(problem)
