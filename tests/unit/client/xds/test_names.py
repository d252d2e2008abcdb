"""xds.names: what a route and a family are called."""

import pytest

from pointsman import FamilyKey, InvalidArgument, RouteKey
from pointsman.xds import name, target


@pytest.mark.parametrize(
    ("key", "expected"),
    [
        ("team-a/payments/prod/v2", "v2~prod~payments~team-a"),
        ("team-a/payments/prod", "prod~payments~team-a"),
        (RouteKey("team-a", "payments", "prod", "v2"), "v2~prod~payments~team-a"),
        (FamilyKey("team-a", "payments", "prod"), "prod~payments~team-a"),
        ("A.b/c_d/e-f/1.0", "1.0~e-f~c_d~A.b"),
    ],
)
def test_a_name_is_the_key_backwards(key: RouteKey | FamilyKey | str, expected: str) -> None:
    assert name(key) == expected
    assert target(key) == f"xds:///{expected}"


def test_a_target_may_have_an_authority() -> None:
    assert target("a/b/c/v1", authority="pointsman") == "xds://pointsman/v1~c~b~a"


@pytest.mark.parametrize("key", ["", "a", "a/b", "a/b/c/d/e", "a/b/c/", "a/b /c", "v2~prod~payments~team-a", "a/b/c~d"])
def test_what_is_no_key_is_refused(key: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        target(key)
    assert caught.value.reason == "INVALID_FIELD"
    assert caught.value.violations


def test_a_key_with_malformed_parts_is_refused_too() -> None:
    with pytest.raises(InvalidArgument, match=r"key\.tenant"):
        name(RouteKey("a b", "c", "d", "e"))


def test_of_another_number_of_parts_both_forms_are_named() -> None:
    with pytest.raises(InvalidArgument, match="tenant/service/env/version or tenant/service/env"):
        name("a/b")
