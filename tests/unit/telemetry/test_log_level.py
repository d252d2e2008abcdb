"""The level of the log changes while the server runs, by a signal, and back."""

import asyncio
import signal
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from pointsman_server.telemetry import log_level
from pointsman_server.telemetry.log_level import SIGNAL, SWITCHED_AT_START, LogLevel


@pytest.fixture
def configured(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    calls: list[tuple[str, str]] = []
    monkeypatch.setattr(log_level.logs, "configure", lambda level, log_format: calls.append((level, log_format)))
    return calls


@pytest.fixture
def _masked() -> Iterator[None]:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    yield
    signal.pthread_sigmask(signal.SIG_SETMASK, before)


@pytest.mark.parametrize(
    ("level", "other"), [("info", "debug"), ("warning", "debug"), ("error", "debug"), ("debug", "info")]
)
def test_it_changes_to_debug_and_back_or_from_debug_to_info(
    configured: list[tuple[str, str]], level: Any, other: str
) -> None:
    running = LogLevel(level, "json")
    running.begin()
    running.switch()
    running.switch()
    assert configured == [(level, "json"), (other, "json"), (level, "json")]


def test_a_worker_that_starts_after_a_switch_has_the_other_level(
    configured: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(SWITCHED_AT_START, "1")
    running = LogLevel("info", "json")
    running.begin()
    running.switch()
    assert configured == [("debug", "json"), ("info", "json")]


@pytest.mark.usefixtures("_masked")
async def test_a_signal_that_comes_too_early_waits() -> None:
    taken = asyncio.Event()
    log_level.block()
    # To this thread: others of the test runner do not block it.
    signal.pthread_kill(threading.get_ident(), SIGNAL)
    log_level.on_signal(asyncio.get_running_loop(), taken.set)
    try:
        await asyncio.wait_for(taken.wait(), 30)
    finally:
        asyncio.get_running_loop().remove_signal_handler(SIGNAL)
