"""Which calls are logged, at which level, and with which fields."""

import time
from typing import Any

import pytest
from grpc import StatusCode
from structlog.testing import capture_logs

from pointsman_server.rpc import access_log
from pointsman_server.rpc.access_log import AccessLog
from pointsman_server.rpc.call import Call


class Context:
    def invocation_metadata(self) -> Any:
        return (("x-request-id", "mine"),)

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"


class Log:
    """A logger that takes lines from ``threshold`` on."""

    def __init__(self, threshold: int) -> None:
        self._threshold = threshold
        self.lines: list[tuple[str, dict[str, object]]] = []

    def is_enabled_for(self, level: int) -> bool:
        return level >= self._threshold

    def info(self, _event: str, **facts: object) -> None:
        self.lines.append(("info", facts))

    def debug(self, _event: str, **facts: object) -> None:
        self.lines.append(("debug", facts))


@pytest.fixture
def call() -> Call:
    return Call(Context())  # type: ignore[arg-type] # stands in


def test_a_line_has_the_method_the_code_the_time_the_peer_and_the_request_id(call: Call) -> None:
    with capture_logs() as lines:
        AccessLog(1.0).record("Resolve", StatusCode.NOT_FOUND, time.perf_counter() - 1, call)
    (line,) = lines
    assert 1000 <= line.pop("milliseconds") < 60_000
    assert line == {
        "event": "call",
        "logger_name": "pointsman_server.rpc.access_log",
        "log_level": "info",
        "method": "Resolve",
        "code": "NOT_FOUND",
        "peer": "ipv4:127.0.0.1:1",
        "request_id": "mine",
    }


@pytest.mark.parametrize(
    ("sample", "threshold", "code", "levels"),
    [
        (0.0, 20, StatusCode.OK, []),
        (0.0, 20, StatusCode.NOT_FOUND, []),
        (0.0, 20, StatusCode.INTERNAL, ["info"]),
        (0.0, 20, StatusCode.UNKNOWN, ["info"]),
        (0.0, 20, StatusCode.DATA_LOSS, ["info"]),
        (0.0, 10, StatusCode.OK, ["debug"]),
        (0.25, 20, StatusCode.OK, []),
        (0.26, 20, StatusCode.OK, ["info"]),
    ],
)
def test_which_calls_are_logged_and_at_which_level(
    monkeypatch: pytest.MonkeyPatch, call: Call, sample: float, threshold: int, code: StatusCode, levels: list[str]
) -> None:
    log = Log(threshold)
    monkeypatch.setattr(access_log, "log", log)
    monkeypatch.setattr(access_log.random, "random", lambda: 0.25)
    AccessLog(sample).record("Resolve", code, time.perf_counter(), call)
    assert [level for level, _ in log.lines] == levels


@pytest.mark.parametrize(("sample", "threshold", "logs"), [(0.0, 20, False), (0.0, 10, True), (0.01, 20, True)])
def test_answers_are_logged_by_a_sample_or_at_debug(
    monkeypatch: pytest.MonkeyPatch, sample: float, threshold: int, logs: bool
) -> None:
    answers = AccessLog(sample)
    assert answers.samples == bool(sample)
    # The level may change while the server runs.
    monkeypatch.setattr(access_log.verbosity, "debug", threshold <= 10)
    assert answers.logs_answers == logs
