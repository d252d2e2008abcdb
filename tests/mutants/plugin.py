"""Loaded into pytest while a mutant is tested: the quickest tests first, and a time limit for each.

mutmut limits a mutant by the sum of its tests; one that never ends would use up all of it.
"""

import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import hypothesis
import pytest

# mutmut's own exit status for a mutant that took too long.
TIMED_OUT = 36
SECONDS, FACTOR = 3.0, 10.0
SETUP_SECONDS = 30.0
STATS = Path("mutmut-stats.json")
FAILURES = Path("failures.txt")


def pytest_configure(config: pytest.Config) -> None:
    """Collect the files of the tests that mutmut names, because pytest cannot find every id that it gives."""
    # mutmut runs several at once, so how long an example takes says nothing.
    slow = [hypothesis.HealthCheck.too_slow]
    hypothesis.settings.register_profile("mutants", deadline=None, suppress_health_check=slow)
    hypothesis.settings.load_profile("mutants")
    if any("::" in argument for argument in config.args):
        _selected.update(config.args)
        config.args = sorted({argument.partition("::")[0] for argument in config.args})


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Keep the tests that mutmut names, and sort by how long a test took without mutants."""
    durations = _durations()
    items[:] = [item for item in items if not _selected or item.nodeid in _selected]
    items.sort(key=lambda item: durations.get(item.nodeid, 0.0))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Iterator[None]:
    """Limit the making of fixtures."""
    return (yield from _limited(SETUP_SECONDS))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Limit the test."""
    return (yield from _limited(SECONDS + FACTOR * _durations().get(item.nodeid, SETUP_SECONDS)))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Limit what a test leaves to end."""
    return (yield from _limited(SETUP_SECONDS))


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Keep what fails without a mutant: mutmut swallows it."""
    if report.failed and os.environ.get("MUTANT_UNDER_TEST") != "fail" and not _mutated():
        with FAILURES.open("a") as file:
            file.write(f"{report.nodeid} ({report.when})\n{report.longreprtext}\n")


def _mutated() -> bool:
    return "__mutmut_" in os.environ.get("MUTANT_UNDER_TEST", "")


def _limited(seconds: float) -> Iterator[None]:
    if not _mutated():
        return (yield)
    signal.signal(signal.SIGALRM, lambda *_: os._exit(TIMED_OUT))
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        return (yield)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


_selected: set[str] = set()
_known: dict[str, float] = {}


def _durations() -> dict[str, float]:
    if not _known and STATS.exists():
        stats: dict[str, Any] = json.loads(STATS.read_text())
        _known.update(stats["duration_by_test"])
    return _known
