"""Every end of a call: its response or refusal, its counts, and its line in the access log."""

import time
from typing import Any

import pytest
from grpc import StatusCode
from structlog.testing import capture_logs

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.errors import Overloaded, RouteNotFound, StoreUnavailable
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.rpc import SERVICE, convert, statuses
from pointsman_server.rpc.access_log import AccessLog
from pointsman_server.rpc.fastpath import encoder
from pointsman_server.rpc.fastpath.call_ends import CallEnds, DeadlinePassed
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.telemetry.logs import verbosity
from pointsman_server.telemetry.metrics import Metrics
from tests.support.fakes import BIRTH, EPOCH

KEY = RouteKey("team-a", "payments", "prod", "v1")


def answer(*, active: bool | None) -> Answer:
    route = None if active is None else Route(KEY, "https://a.internal", active, {}, 3, BIRTH, BIRTH)
    return Answer(Snapshot(KEY, route, 7, EPOCH), Source.REDIS)


class Context:
    """A call with a request id of its own, and ``remaining`` seconds."""

    def __init__(self, remaining: float | None = None) -> None:
        self.remaining = remaining

    def invocation_metadata(self) -> Any:
        return (("x-request-id", "mine"),)

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float | None:
        return self.remaining


class Fixture:
    def __init__(self, *, sample: float = 1.0) -> None:
        self.metrics = Metrics()
        self.counters = FastPathCounters(self.metrics, SERVICE)
        self.ends = CallEnds(self.counters, AccessLog(sample))

    def conclude(self, outcome: Answer | BaseException) -> bytes | Refusal:
        return self.ends.conclude(outcome, time.perf_counter(), Context())

    def ended(self, code: str, method: str = "Resolve") -> float:
        labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": method, "grpc_code": code}
        return self._value("grpc_server_handled_total", labels)

    def resolved(self, outcome: str) -> float:
        return self._value("pointsman_resolve_requests_total", {"outcome": outcome})

    def _value(self, name: str, labels: dict[str, str]) -> float:
        self.counters.flush()
        return self.metrics.registry.get_sample_value(name, labels) or 0.0


def test_an_active_route_is_the_response() -> None:
    fixture = Fixture()
    with capture_logs() as lines:
        response = fixture.conclude(answer(active=True))
    assert isinstance(response, bytes)
    assert pb.ResolveResponse.FromString(response) == convert.resolve_response(answer(active=True))
    assert (fixture.ended("OK"), fixture.resolved("active")) == (1, 1)
    assert [(line["method"], line["code"], line["request_id"]) for line in lines] == [("Resolve", "OK", "mine")]


@pytest.mark.parametrize(("active", "outcome"), [(None, "absent"), (False, "inactive")])
def test_an_absent_or_inactive_route_is_a_refusal(active: bool | None, outcome: str) -> None:
    fixture = Fixture()
    with capture_logs() as lines:
        refusal = fixture.conclude(answer(active=active))
    assert isinstance(refusal, Refusal)
    assert refusal.code is StatusCode.NOT_FOUND
    assert (fixture.ended("NotFound"), fixture.resolved(outcome), fixture.resolved("failed")) == (1, 1, 0)
    assert [line["code"] for line in lines] == ["NOT_FOUND"]


def test_an_error_of_a_load_is_refused_as_that_and_the_key_counts_as_failed() -> None:
    fixture, error = Fixture(), StoreUnavailable()
    assert fixture.conclude(error) == Refusal.of_error(error, "mine")
    assert (fixture.ended("Unavailable"), fixture.resolved("failed")) == (1, 1)


def test_a_call_whose_deadline_passed_does_not_count_as_a_failed_key() -> None:
    fixture, refusal = Fixture(), Refusal.of_deadline(2.5, "mine")
    assert fixture.conclude(DeadlinePassed(2.5)) == refusal
    assert fixture.ended(statuses.name_of(refusal.code)) == 1
    assert fixture.resolved("failed") == 0


def broken(_: Answer) -> bytes:
    raise ValueError("a secret")


@pytest.mark.parametrize("where", ["load", "encoder"])
def test_a_bug_is_logged_with_its_cause_and_refused_without_it(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    fixture = Fixture()
    if where == "encoder":
        monkeypatch.setattr(encoder, "response_of", broken)
    with capture_logs() as lines:
        refusal = fixture.conclude(answer(active=True) if where == "encoder" else ValueError("a secret"))
    assert refusal == Refusal.of_bug("mine")
    assert "a secret" not in repr(refusal)
    assert (fixture.ended("Internal"), fixture.ended("OK")) == (1, 0)
    (bug,) = [line for line in lines if line["log_level"] == "error"]
    assert (bug["request_id"], str(bug["exc_info"])) == ("mine", "a secret")


def test_the_delay_of_a_retry_is_sent() -> None:
    error = Overloaded("cache_loads")
    refusal = Fixture().ends.refuse("BatchResolve", error, time.perf_counter(), Context())
    assert "grpc-retry-pushback-ms" in dict(refusal.trailers)


def test_a_refused_batch_counts_as_a_batch() -> None:
    fixture = Fixture()
    fixture.ends.refuse("BatchResolve", RouteNotFound(str(KEY), 1, EPOCH), time.perf_counter(), Context())
    assert (fixture.ended("NotFound", "BatchResolve"), fixture.ended("NotFound")) == (1, 0)


@pytest.mark.parametrize(
    ("remaining", "code"),
    [
        (None, StatusCode.CANCELLED),
        (0.1, StatusCode.CANCELLED),
        (0.0, StatusCode.DEADLINE_EXCEEDED),
        (-1.0, StatusCode.DEADLINE_EXCEEDED),
    ],
)
def test_a_cancelled_call_whose_deadline_is_exceeded_counts_as_that(remaining: float | None, code: StatusCode) -> None:
    fixture = Fixture()
    with capture_logs() as lines:
        fixture.ends.cancelled("Resolve", time.perf_counter(), Context(remaining))
    assert fixture.ended(statuses.name_of(code)) == 1
    assert [line["code"] for line in lines] == [code.name]


@pytest.mark.parametrize("sample", [0.0, 1.0])
def test_answers_are_logged_if_the_access_log_has_them(sample: float, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pointsman_server.rpc.access_log.log.is_enabled_for", lambda _level: False)
    monkeypatch.setattr(verbosity, "debug", False)
    fixture = Fixture(sample=sample)
    with capture_logs() as lines:
        fixture.conclude(answer(active=True))
    assert fixture.ends.logs_answers == fixture.ends.samples == bool(sample) == bool(lines)
