from pathlib import Path
from typing import Any

import pytest

from pointsman.near_cache import options as module
from pointsman.near_cache.options import options
from pointsman.near_cache.table.view import Filter

GOOD: dict[str, Any] = {
    "tenants": ["team-a", "team-b", "team-a"],
    "service": "",
    "env": "prod",
    "path": "routes",
    "max_stale": 30.0,
    "on_stale": "call",
    "name": "checkout",
}


def test_what_is_asked_for() -> None:
    chosen = options(**GOOD)
    assert chosen.filters == (Filter("team-a", "", "prod"), Filter("team-b", "", "prod"))
    assert (chosen.path, chosen.name) == (Path("routes"), "checkout")
    assert options(**GOOD | {"tenants": None, "path": None}).filters == (Filter("", "", "prod"),)


@pytest.mark.parametrize(
    "bad",
    [
        {"tenants": []},
        {"tenants": [""]},
        {"tenants": ["no/tenant"]},
        {"service": "."},
        {"env": "x" * 64},
        {"max_stale": 0.0},
        {"max_stale": float("nan")},
        {"on_stale": "panic"},
    ],
)
def test_what_makes_no_sense(bad: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=next(iter(bad))):
        options(**GOOD | bad)


def test_a_text_is_no_list_of_tenants() -> None:
    with pytest.raises(TypeError, match="a list"):
        options(**GOOD | {"tenants": "team-a"})


@pytest.mark.parametrize(
    ("argument", "program"),
    [("/usr/bin/checkout", "checkout"), ("/srv/checkout/__main__.py", "checkout"), ("", "python")],
)
def test_the_name_is_the_program_and_the_host(argument: str, program: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module.sys, "argv", [argument])
    monkeypatch.setattr(module.socket, "gethostname", lambda: "host-1")
    assert options(**GOOD | {"name": ""}).name == f"{program}@host-1"
    assert len(options(**GOOD | {"name": "x" * 200}).name) == 128
