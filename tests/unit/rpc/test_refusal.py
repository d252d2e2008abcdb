"""The code, text and trailers of refused calls."""

from typing import Any, cast

import grpc
import pytest
from google.rpc import error_details_pb2, status_pb2
from grpc import StatusCode

from pointsman_server.domain.errors import RouteNotFound, ShuttingDown
from pointsman_server.rpc import refusal as refusal_module
from pointsman_server.rpc.refusal import Refusal, abort
from tests.support.call_context import CallContext


def details(refusal: Refusal) -> status_pb2.Status:
    return status_pb2.Status.FromString(cast("bytes", dict(refusal.trailers)["grpc-status-details-bin"]))


def test_a_domain_error_has_its_code_text_reason_and_request_id() -> None:
    error = RouteNotFound("a/b/c/d", 7, "epoch")
    refusal = Refusal.of_error(error, "mine")
    info = error_details_pb2.ErrorInfo()

    assert (refusal.code, refusal.text) == (StatusCode.NOT_FOUND, error.message)
    assert dict(refusal.trailers)["x-request-id"] == "mine"
    assert details(refusal).message == refusal.text
    assert details(refusal).details[0].Unpack(info)
    assert info.reason == "ROUTE_NOT_FOUND"


@pytest.mark.parametrize(
    ("random", "milliseconds"), [(0.0, "250"), (0.5, "313"), (1.0, "375")], ids=["least", "middle", "most"]
)
def test_pushback_is_from_one_to_one_and_a_half_times_the_retry_delay(
    monkeypatch: pytest.MonkeyPatch, random: float, milliseconds: str
) -> None:
    monkeypatch.setattr(refusal_module.random, "random", lambda: random)
    error = ShuttingDown()
    error.retry_delay = 0.25

    assert dict(Refusal.of_error(error, "").trailers)["grpc-retry-pushback-ms"] == milliseconds


def test_pushback_is_not_sent_for_a_final_error() -> None:
    error = RouteNotFound("a/b/c/d", 7, "epoch")

    assert "grpc-retry-pushback-ms" not in dict(Refusal.of_error(error, "").trailers)


def test_a_bug_has_a_fixed_text_and_the_request_id() -> None:
    refusal = Refusal.of_bug("mine")

    assert refusal.code is StatusCode.INTERNAL
    assert refusal.text == "internal error: tell the operator the x-request-id of this call"
    assert set(dict(refusal.trailers)) == {"grpc-status-details-bin", "x-request-id"}


def test_the_default_deadline_names_itself() -> None:
    refusal = Refusal.of_deadline(2.5, "mine")

    text = "default server deadline (2.5 s) exceeded: set a client deadline"
    assert (refusal.code, refusal.text) == (StatusCode.DEADLINE_EXCEEDED, text)


@pytest.mark.parametrize(
    "refusal",
    [
        Refusal.of_error(ShuttingDown(), "mine"),
        Refusal.of_bug("mine"),
        Refusal.of_deadline(2.5, "mine"),
        Refusal.of_unimplemented("mine"),
    ],
)
def test_every_refusal_names_the_call_in_its_trailers_and_its_details(refusal: Refusal) -> None:
    kind = error_details_pb2.RequestInfo
    found = [kind.FromString(detail.value) for detail in details(refusal).details if detail.Is(kind.DESCRIPTOR)]

    assert dict(refusal.trailers)["x-request-id"] == "mine"
    assert [info.request_id for info in found] == ["mine"]


async def test_abort_sends_the_trailers_with_the_status() -> None:
    context = CallContext()
    refusal = Refusal.of_error(ShuttingDown(), "mine")
    with pytest.raises(grpc.aio.AbortError):
        await abort(cast("Any", context), refusal)

    assert context.status == (refusal.code, refusal.text)
    assert context.trailers == dict(refusal.trailers)
