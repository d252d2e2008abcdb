"""A figure that would not be what it says is refused."""

from pathlib import Path
from typing import Any, cast

import pytest

from tests.bench import layers
from tests.bench.children import Child
from tests.bench.contests import Refused
from tests.bench.rows.propagation import CHANGES_PER_SECOND, _Watch

SERVER = cast("Child", Path())  # nothing here asks it


def counted(monkeypatch: pytest.MonkeyPatch, *counts: dict[str, float]) -> None:
    given = iter(counts)
    monkeypatch.setattr(layers, "answered", lambda _: next(given))


def test_the_layer_that_is_claimed_must_have_answered(monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, {"LOCAL": 100, "REDIS": 50}, {"LOCAL": 1100, "REDIS": 55})
    with layers.answering(SERVER, "LOCAL"):
        pass
    counted(monkeypatch, {"LOCAL": 0}, {"LOCAL": 900, "REDIS": 100})
    with pytest.raises(Refused, match=r"LOCAL answered only 90\.0%"), layers.answering(SERVER, "LOCAL"):
        pass


def test_a_run_without_answers_is_no_figure(monkeypatch: pytest.MonkeyPatch) -> None:
    counted(monkeypatch, {"LOCAL": 5}, {"LOCAL": 5})
    with pytest.raises(Refused), layers.answering(SERVER, "LOCAL"):
        pass


def watched(**seen: Any) -> _Watch:
    watch = _Watch(SERVER, SERVER, {})
    watch._delays = [float(delay) for delay in range(1, 1001)]
    watch._changed = 1000
    for name, value in seen.items():
        setattr(watch, f"_{name}", value)
    return watch


def test_delays_at_the_rate_that_is_claimed() -> None:
    sample = watched()._sample(took=1000 / CHANGES_PER_SECOND)
    assert sample["rate"] == CHANGES_PER_SECOND
    assert sample["p50"] == pytest.approx(500, abs=1)
    assert sample["p99"] == pytest.approx(990, abs=1)


@pytest.mark.parametrize(
    ("seen", "took", "reason"), [({}, 1000 / 100, "only 100 changes/s"), ({"elsewhere": 50}, 5.0, "another layer")]
)
def test_delays_at_another_rate_or_of_another_layer_are_refused(seen: Any, took: float, reason: str) -> None:
    with pytest.raises(Refused, match=reason):
        watched(**seen)._sample(took)
