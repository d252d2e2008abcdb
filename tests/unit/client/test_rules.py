"""rules: what the client refuses early, and the server for good."""

import subprocess
import sys

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from pointsman.rules import KEY_PARTS, InvalidKey, ascii_host, label_problem, split_key, url_problem


def test_the_module_imports_the_standard_library_alone() -> None:
    program = "import sys, pointsman.rules; print(*(name.partition('.')[0] for name in sys.modules))"
    loaded = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True).stdout.split()
    clean = subprocess.run(
        [sys.executable, "-c", program.replace(", pointsman.rules", "")], check=True, capture_output=True, text=True
    ).stdout.split()
    assert set(loaded) - set(clean) - sys.stdlib_module_names == {"pointsman"}


# Keys


def test_a_key_is_split_into_its_parts() -> None:
    assert split_key("team-a/payments/prod/v1.2_3") == ["team-a", "payments", "prod", "v1.2_3"]


@pytest.mark.parametrize("text", ["", "a", "a/b/c", "a/b/c/d/e", "/a/b/c/d"])
def test_a_key_without_four_parts_is_refused_as_a_whole(text: str) -> None:
    with pytest.raises(InvalidKey) as raised:
        split_key(text)
    assert raised.value.field == "key"
    assert "tenant/service/env/version" in raised.value.description


@pytest.mark.parametrize("bad", ["", "-", "a-", ".a", "a b", "a\n", "\u00e4", "a" * 64])
@pytest.mark.parametrize("number", range(4))
def test_the_part_that_breaks_the_rule_is_named(bad: str, number: int) -> None:
    parts = ["a"] * 4
    parts[number] = bad
    with pytest.raises(InvalidKey) as raised:
        split_key("/".join(parts))
    assert raised.value.field == f"key.{KEY_PARTS[number]}"
    assert repr(bad) in raised.value.description


# URLs


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
        "x://h/" + "a" * 2042,
        "https://payments_v2.team-a.internal.",
        "https://xn--bcher-kva.example",
        "https://bücher.example",
        "https://BÜCHER.example",
        "https://ミニ・ボート.example",
        "https://" + "a" * 63 + ".example",
        "https://" + ".".join(["a" * 49] * 5),
        "https://1.example",
        "https://v2.1a",
        "http://[::ffff:10.0.0.1]",
    ],
)
def test_an_absolute_url_with_a_host_is_fine(url: str) -> None:
    assert url_problem(url) is None


CREDENTIALS = "no credentials"
CHARACTERS = "no whitespace, control or invisible characters, and no backslashes"
HOST = "must have a valid host"
ABSOLUTE = "must be absolute"
VALID = "must be a valid URL"

INVISIBLE = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u180b\u180e\u200b\u200c\u200d\u200e\u202e\u2060\u2066\u2800\u3164"
    "\ufe0f\ufeff\uffa0\ufff9\U000e0001\U000e0100\ue000"
)

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
    ("x://h/" + "a" * 2043, "at most 2048 characters"),
    # Invisible characters: between words, joiners, direction marks, fillers, variation selectors, tags.
    *((f"https://pay{character}ments.example", CHARACTERS) for character in INVISIBLE),
    *((f"https://payments.example/pay{character}ments", CHARACTERS) for character in INVISIBLE),
    # RFC 1123 §2.1, RFC 1035 §2.3.4.
    ("https://payments..internal", HOST),
    ("https://.internal", HOST),
    ("https://payments..", HOST),
    ("https://.", HOST),
    ("https://-payments", HOST),
    ("https://payments-", HOST),
    ("https://payments-.internal", HOST),
    ("https://" + "a" * 64, HOST),
    ("https://" + ".".join(["a" * 50] * 5), HOST),
    *((f"https://pay{character}ments", HOST) for character in "!$&'()*+,;=~\"<>^`{|}"),
    ("https://pay%6dents", HOST),
    # What looks like an IPv4 address must be one.
    ("https://10.0.0.256", HOST),
    ("https://10.0.1", HOST),
    ("https://10.0.0.1.1", HOST),
    ("https://010.0.0.1", HOST),
    ("https://2130706433", HOST),
    ("https://0x7f000001", HOST),
    ("https://127.0.0.0x1", HOST),
    ("https://[v1.future]", HOST),
    # RFC 5891 §4.2, RFC 5892: not normalized, disallowed, a mark first, hyphens in the third and fourth place.
    ("https://bu\u0308cher.example", HOST),
    ("https://\N{FULLWIDTH LATIN SMALL LETTER P}ayments.example", HOST),
    ("https://i❤payments.example", HOST),
    ("https://pay\N{HYPHEN}ments.example", HOST),
    ("https://payments。example", HOST),
    ("https://\u0308payments.example", HOST),
    ("https://bü--cher.example", HOST),
    ("https://" + "ü" * 60 + ".example", HOST),
    ("https://xn--.example", HOST),
    ("https://xn--payments-.example", HOST),
    ("https://xn--99999999999.example", HOST),
    # Punycode of a zero-width space.
    ("https://xn--payments-2i7d.example", HOST),
]


@pytest.mark.parametrize(("url", "problem"), BAD_URLS)
def test_a_bad_url_is_refused_with_the_rule_that_it_breaks(url: str, problem: str) -> None:
    assert problem in (url_problem(url) or "")


@pytest.mark.parametrize(("url", "problem"), BAD_URLS)
def test_a_refusal_never_repeats_the_url(url: str, problem: str) -> None:
    assert "SECRET" not in (url_problem(url) or "")


@given(st.text())
@example("http://[")
@example("http://\N{CARE OF}")
def test_any_text_is_judged_without_an_exception(url: str) -> None:
    assert isinstance(url_problem(url), str | None)


@given(st.text(alphabet="htp:/@[].%0a1\\ #?\N{DEGREE CELSIUS}", max_size=20).map("http://".__add__))
def test_any_text_after_a_scheme_is_judged_without_an_exception(url: str) -> None:
    if url_problem(url) is None:
        assert "@" not in url.removeprefix("http://").partition("/")[0].partition("?")[0].partition("#")[0]


# Labels


@pytest.mark.parametrize(("name", "value"), [("tier", "gold"), ("k8s.io/name", ""), ("a", "ü" * 256)])
def test_a_label_is_fine(name: str, value: str) -> None:
    assert label_problem(name, value) is None


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("-a", "x"), ("a" * 64, "x"), ("a", "x" * 257), ("a", "\n")])
def test_a_bad_label_is_named(name: str, value: str) -> None:
    assert "label" in (label_problem(name, value) or "")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("Payments.Internal", "payments.internal"),
        ("2001:DB8::1", "2001:db8::1"),
        ("10.0.0.1", "10.0.0.1"),
        ("Straße.example", "xn--strae-oqa.example"),
        ("xn--strae-oqa.example", "xn--strae-oqa.example"),
    ],
)
def test_a_host_as_dns_has_it(host: str, expected: str) -> None:
    assert url_problem(f"https://[{host}]" if ":" in host else f"https://{host}") is None
    assert ascii_host(host) == expected
