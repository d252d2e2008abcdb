"""keys: the name of a route and its text."""

import pytest

from pointsman import FamilyKey, InvalidArgument, RouteKey
from pointsman.keys import as_key


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
