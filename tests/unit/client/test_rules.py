"""rules: the same answers as the server gives."""

import pytest

from pointsman.rules import label_problem, url_problem


@pytest.mark.parametrize("url", ["https://a.internal", "http://[::1]:8080/x?y#z", "grpc+unix://host/path"])
def test_an_absolute_url_is_fine(url: str) -> None:
    assert url_problem(url) is None


@pytest.mark.parametrize(
    ("url", "part"),
    [
        ("payments.internal", "absolute"),
        ("/path", "absolute"),
        ("https://", "absolute"),
        ("https://user:hunter2@a.internal", "credentials"),
        ("https://a b.internal", "whitespace"),
        ("https://a.internal:port", "valid"),
        ("https://a.internal/" + "x" * 2048, "2048"),
    ],
)
def test_what_is_wrong_with_a_url_is_said_without_repeating_it(url: str, part: str) -> None:
    problem = url_problem(url) or ""
    assert part in problem
    assert "hunter2" not in problem


@pytest.mark.parametrize(("name", "value"), [("tier", "gold"), ("k8s.io/name", ""), ("a", "ü" * 256)])
def test_a_label_is_fine(name: str, value: str) -> None:
    assert label_problem(name, value) is None


@pytest.mark.parametrize(("name", "value"), [("", "x"), ("-a", "x"), ("a" * 64, "x"), ("a", "x" * 257), ("a", "\n")])
def test_a_bad_label_is_named(name: str, value: str) -> None:
    assert "label" in (label_problem(name, value) or "")
