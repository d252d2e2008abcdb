"""The domain: what a key and a url may be."""

from contextlib import suppress

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pointsman_server.domain.errors import InvalidField
from pointsman_server.domain.routes import Change, ChangeKind, RouteKey, check_url, url_problem
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
    with pytest.raises(InvalidField, match="each part must be 1 to 63 characters"):
        RouteKey.parse(text)


@pytest.mark.parametrize("part", ["a", "0", "Z", "a" * 63, "v1.2.3-rc_1", "a-b"])
def test_a_part_may_be_1_to_63_letters_digits_dots_dashes_and_underscores(part: str) -> None:
    assert RouteKey.parse(f"{part}/{part}/{part}/{part}") == RouteKey(part, part, part, part)


def test_the_family_of_a_key_is_everything_but_its_version() -> None:
    assert RouteKey("a", "b", "c", "d").family == "a/b/c"


def test_keys_sort_part_by_part_and_not_as_text() -> None:
    assert RouteKey("a", "b", "c", "d") < RouteKey("a-b", "a", "a", "a")


# Urls


@pytest.mark.parametrize(
    "url",
    [
        "https://payments.internal",
        "https://payments.internal:8443/v2?x=%20#y",
        "http://10.0.0.1:80",
        "http://[::1]:8080/",
        "grpc+tls://payments:50051",
        "HTTPS://PAYMENTS",
        "https://пример.example/ü",
        "https://payments:",
        "https://payments/@me",
        "x://h" + "a" * 2043,
    ],
)
def test_an_absolute_url_with_a_host_is_fine(url: str) -> None:
    assert url_problem(url) is None
    check_url(url)


CREDENTIALS = "no credentials"
CHARACTERS = "no whitespace, control characters or backslashes"
ABSOLUTE = "must be absolute"
VALID = "must be a valid URL"

BAD_URLS = [
    ("https://user:SECRET@payments", CREDENTIALS),
    ("https://SECRET@payments", CREDENTIALS),
    ("https://@payments", CREDENTIALS),
    ("https://:@payments", CREDENTIALS),
    ("https://a@SECRET@payments", CREDENTIALS),
    ("https://pay ments", CHARACTERS),
    (" https://payments", CHARACTERS),
    ("https://payments\n", CHARACTERS),
    ("https://pay\tments", CHARACTERS),
    ("https://payments/\0", CHARACTERS),
    ("https://payments/\x7f", CHARACTERS),
    ("https://payments/\x85", CHARACTERS),
    ("https://payments/\u2028", CHARACTERS),
    ("https://payments/\u00a0", CHARACTERS),
    ("https:\\\\payments", CHARACTERS),
    ("https://good\\@payments", CHARACTERS),
    ("", ABSOLUTE),
    ("payments", ABSOLUTE),
    ("payments:8443", ABSOLUTE),
    ("/payments", ABSOLUTE),
    ("//payments", ABSOLUTE),
    ("https:payments", ABSOLUTE),
    ("https:/payments", ABSOLUTE),
    ("https://", ABSOLUTE),
    ("https:///path", ABSOLUTE),
    ("https://:8443", ABSOLUTE),
    ("javascript:alert(1)", ABSOLUTE),
    ("1http://payments", ABSOLUTE),
    ("://payments", ABSOLUTE),
    ("https://payments:99999", VALID),
    ("https://payments:-1", VALID),
    ("https://payments:http", VALID),
    ("https://payments:0x50", VALID),
    ("https://payments:\N{FULLWIDTH DIGIT EIGHT}", VALID),
    ("https://[::1", VALID),
    ("https://::1]", VALID),
    ("https://[not-an-address]", VALID),
    ("x://h" + "a" * 2044, "at most 2048 characters"),
]


@pytest.mark.parametrize(("url", "problem"), BAD_URLS)
def test_a_bad_url_is_refused_with_the_rule_that_it_breaks(url: str, problem: str) -> None:
    with pytest.raises(InvalidField) as raised:
        check_url(url)
    (violation,) = raised.value.violations
    assert violation.field == "url"
    assert problem in violation.description


@pytest.mark.parametrize(("url", "problem"), BAD_URLS)
def test_a_refusal_never_repeats_the_url(url: str, problem: str) -> None:
    assert "SECRET" not in (url_problem(url) or "")


@given(st.text())
@example("http://[")
@example("http://\N{CARE OF}")
def test_any_text_is_judged_without_an_exception(url: str) -> None:
    url_problem(url)


@given(st.text(alphabet="htp:/@[].%0a1\\ #?\N{DEGREE CELSIUS}", max_size=20).map("http://".__add__))
def test_any_text_after_a_scheme_is_judged_without_an_exception(url: str) -> None:
    if url_problem(url) is None:
        assert "@" not in url.removeprefix("http://").partition("/")[0].partition("?")[0].partition("#")[0]


# Changes


def test_the_snapshot_of_a_change_is_the_key_right_after_it() -> None:
    key = RouteKey("a", "b", "c", "d")
    change = Change(7, "id", ChangeKind.DELETED, key, None, None, "alice", "", "", BIRTH, "epoch")
    assert (change.snapshot.key, change.snapshot.route, change.snapshot.as_of) == (key, None, 7)
