"""The domain: what a key and a url may be."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.rules import url_problem
from pointsman_server.domain.errors import FieldViolation, InvalidField
from pointsman_server.domain.routes import Change, ChangeKind, RouteKey, check_url
from tests.support.fakes import BIRTH

parts = st.from_regex(r"[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?", fullmatch=True)
keys = st.builds(RouteKey, parts, parts, parts, parts)


# Keys


@given(keys)
def test_a_key_is_what_its_text_says(key: RouteKey) -> None:
    assert RouteKey.parse(str(key)) == key


@given(keys, keys)
def test_different_keys_have_different_texts(one: RouteKey, other: RouteKey) -> None:
    assert (str(one) == str(other)) == (one == other)


@given(st.text())
def test_what_parses_at_all_is_the_text_of_its_key(text: str) -> None:
    with suppress(InvalidField):
        assert str(RouteKey.parse(text)) == text


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a/b/c",
        "a/b/c/d/e",
        "a/b/c/",
        "/a/b/c/d",
        "a//c/d",
        "a/b/c/d\n",
        "a/b/c/ d",
        "a/b/c/-d",
        "a/b/c/d.",
        "a/b/c/.",
        "a/b/c/ü",
        "a/b/c/d\0",
        "a/b/c/\N{ARABIC-INDIC DIGIT FIVE}",
        "a/b/c/" + "d" * 64,
    ],
)
def test_a_malformed_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidField, match=r"must be (1 to 63 characters|tenant/service/env/version)"):
        RouteKey.parse(text)


@pytest.mark.parametrize("part", ["a", "0", "Z", "a" * 63, "v1.2.3-rc_1", "a-b"])
def test_a_part_may_be_1_to_63_letters_digits_dots_dashes_and_underscores(part: str) -> None:
    assert RouteKey.parse(f"{part}/{part}/{part}/{part}") == RouteKey(part, part, part, part)


def test_the_family_of_a_key_is_everything_but_its_version() -> None:
    assert RouteKey("a", "b", "c", "d").family == "a/b/c"


def test_keys_sort_part_by_part_and_not_as_text() -> None:
    assert RouteKey("a", "b", "c", "d") < RouteKey("a-b", "a", "a", "a")


# Urls


def test_a_url_that_breaks_the_rules_names_the_field_and_the_rule() -> None:
    check_url("https://payments.internal:8443/v2")
    with pytest.raises(InvalidField) as raised:
        check_url("payments")
    (violation,) = raised.value.violations
    assert violation == FieldViolation("url", url_problem("payments") or "")


# Changes


def test_the_snapshot_of_a_change_is_the_key_right_after_it() -> None:
    key = RouteKey("a", "b", "c", "d")
    change = Change(7, "id", ChangeKind.DELETED, key, None, None, "alice", "", "", BIRTH, "epoch")
    assert (change.snapshot.key, change.snapshot.route, change.snapshot.as_of) == (key, None, 7)
