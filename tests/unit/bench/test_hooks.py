"""Parts in modules of their own are measured where they are there."""

import sys
from types import ModuleType

import pytest

from tests.bench.rows import hooks


def test_a_module_that_is_not_there_is_no_part() -> None:
    assert hooks.parts({"nothing": "tests.bench.surely_not_there"}) == {}


def test_a_module_that_is_there_gives_its_contest(monkeypatch: pytest.MonkeyPatch) -> None:
    module = ModuleType("bench_extra")
    module.__spec__ = object()  # type: ignore[assignment]
    module.contest = lambda rig: rig  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "bench_extra", module)
    assert hooks.parts({"extra": "bench_extra"})["extra"]("a rig") == "a rig"
