"""Requests to what the core understands, and its answers to responses."""

from typing import Any, cast

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import key_to_message, route_to_message
from pointsman_server.domain.errors import RouteInactive, RouteNotFound, StoreUnavailable
from pointsman_server.domain.routes import Change, ChangeKind, Route, RouteKey, Snapshot
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.rpc import convert
from pointsman_server.rpc.call import Call
from pointsman_server.writes.mutations import Activate, Create, Deactivate, Delete, Update
from tests.support.fakes import BIRTH

KEY = RouteKey("team-a", "payments", "prod", "v1")
URL = "https://payments.internal:8443"


class FakeCall:
    """A call that is known without a server."""

    actor = "alice"
    request_id = "call-1"
    trace = ("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "vendor=opaque")


CALL = cast("Call", FakeCall())


def route(version: str = "v1", *, active: bool = True) -> Route:
    return Route(KEY._replace(version=version), URL, active, {"tier": "gold"}, 5, BIRTH, BIRTH)


def change(revision: int) -> Change:
    return Change(revision, "id", ChangeKind.CREATED, KEY, None, route(), "alice", "", "", BIRTH, "epoch")


def key() -> route_pb2.RouteKey:
    return key_to_message(KEY)


# Commands


@pytest.mark.parametrize(
    ("request_", "active"),
    [
        (pb.CreateRequest(key=key(), url=URL), True),
        (pb.CreateRequest(key=key(), url=URL, active=True), True),
        (pb.CreateRequest(key=key(), url=URL, active=False), False),
    ],
    ids=["unset", "true", "false"],
)
def test_create_is_active_unless_it_says_otherwise(request_: pb.CreateRequest, active: bool) -> None:
    assert convert.create(request_) == Create(KEY, URL, {}, active)


@pytest.mark.parametrize(
    ("request_", "command"),
    [
        (pb.UpdateRequest(key=key()), Update(KEY)),
        (pb.UpdateRequest(key=key(), url=URL), Update(KEY, URL)),
        (pb.UpdateRequest(key=key(), url=""), Update(KEY, "")),
        (pb.UpdateRequest(key=key(), labels=pb.Labels()), Update(KEY, None, {})),
        (pb.UpdateRequest(key=key(), labels=pb.Labels(labels={"a": "b"})), Update(KEY, None, {"a": "b"})),
        (pb.UpdateRequest(key=key(), expected_revision=7), Update(KEY, expected_revision=7)),
        (pb.UpdateRequest(key=key(), allow_missing=True), Update(KEY, allow_missing=True)),
    ],
    ids=["nothing", "url", "empty url", "no labels", "labels", "revision", "upsert"],
)
def test_what_an_update_leaves_unset_stays_as_it_is_and_what_it_sets_empty_becomes_empty(
    request_: pb.UpdateRequest, command: Update
) -> None:
    assert convert.update(request_) == command


def test_the_other_commands_carry_every_field() -> None:
    assert convert.activate(pb.ActivateRequest(key=key(), expected_revision=7, exclusive=True)) == Activate(
        KEY, 7, True
    )
    assert convert.activate(pb.ActivateRequest(key=key())) == Activate(KEY)
    assert convert.deactivate(pb.DeactivateRequest(key=key(), expected_revision=7)) == Deactivate(KEY, 7)
    assert convert.delete(pb.DeleteRequest(key=key(), expected_revision=7)) == Delete(KEY, 7)


# Fingerprints


def test_an_intent_says_who_why_and_under_which_id() -> None:
    intent = convert.intent(pb.DeleteRequest(key=key(), request_id="id-1", reason="old"), CALL)
    assert (intent.actor, intent.reason, intent.request_id) == ("alice", "old", "id-1")
    assert (intent.traceparent, intent.tracestate, intent.call_id) == (*FakeCall.trace, FakeCall.request_id)


def fingerprint(request: convert.MutationRequest) -> bytes:
    return convert.intent(request, CALL).fingerprint


def test_the_same_request_has_the_same_fingerprint_whatever_the_order_of_its_labels() -> None:
    labels = {f"label-{number}": str(number) for number in range(50)}
    one = pb.CreateRequest(key=key(), url=URL, labels=labels, request_id="id")
    other = pb.CreateRequest(key=key(), url=URL, labels=dict(reversed(labels.items())), request_id="id")
    assert fingerprint(one) == fingerprint(other) != b""


def test_the_fingerprint_covers_the_method() -> None:
    """These two are the same bytes on the wire."""
    delete, deactivate = (kind(key=key(), request_id="id") for kind in (pb.DeleteRequest, pb.DeactivateRequest))
    activate = pb.ActivateRequest(key=key())
    assert activate.SerializeToString() == pb.DeleteRequest(key=key()).SerializeToString()
    assert delete.SerializeToString() == deactivate.SerializeToString()
    assert fingerprint(delete) != fingerprint(deactivate)


@pytest.mark.parametrize(
    "fields",
    [
        {"key": key_to_message(KEY._replace(version="v2"))},
        {"url": URL + "/"},
        {"labels": pb.Labels()},
        {"expected_revision": 1},
        {"allow_missing": True},
        {"reason": "because"},
    ],
    ids=lambda fields: next(iter(fields)),
)
def test_the_fingerprint_covers_every_field(fields: dict[str, Any]) -> None:
    same: dict[str, Any] = {"key": key(), "url": URL, "request_id": "id"}
    one, other = pb.UpdateRequest(**same), pb.UpdateRequest(**(same | fields))
    assert fingerprint(one) != fingerprint(other)


# Answers


def test_a_resolved_route_comes_with_its_provenance() -> None:
    response = convert.resolve_response(Answer(Snapshot(KEY, route(), 9), Source.LOCAL, 1.5))
    assert response.route == route_to_message(route())
    assert response.provenance.source == pb.Provenance.SOURCE_LOCAL
    assert response.provenance.age == Duration(seconds=1, nanos=500_000_000)
    assert response.provenance.as_of_revision == 9


def test_every_source_has_its_name_in_the_proto() -> None:
    names = set(pb.Provenance.Source.keys()) - {"SOURCE_UNSPECIFIED"}
    assert names == {f"SOURCE_{source}" for source in Source}


@pytest.mark.parametrize(("found", "error"), [(None, RouteNotFound), (route(active=False), RouteInactive)])
def test_what_is_no_active_route_is_raised(found: Route | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        convert.resolve_response(Answer(Snapshot(KEY, found, 9), Source.POSTGRES))


def test_a_result_of_a_batch_is_a_route_with_its_provenance() -> None:
    result = convert.batch_result(KEY, Answer(Snapshot(KEY, route(), 9), Source.REDIS))
    assert result.key == key()
    assert result.WhichOneof("answer") == "route"
    assert result.provenance.as_of_revision == 9


@pytest.mark.parametrize("found", [None, route(active=False)], ids=["absent", "inactive"])
def test_a_result_without_a_route_says_why_and_as_of_when(found: Route | None) -> None:
    result = convert.batch_result(KEY, Answer(Snapshot(KEY, found, 9), Source.REDIS))
    assert result.WhichOneof("answer") == "status"
    assert result.status.code == 5  # NOT_FOUND
    assert result.provenance.as_of_revision == 9


def test_a_result_that_no_layer_answered_has_a_status_and_no_provenance() -> None:
    result = convert.batch_result(KEY, StoreUnavailable())
    assert result.status.code == 14  # UNAVAILABLE
    assert not result.HasField("provenance")


@pytest.mark.parametrize(
    ("seconds", "expected"),
    [
        (0.0, Duration()),
        (0.25, Duration(nanos=250_000_000)),
        (1.0, Duration(seconds=1)),
        (86400.5, Duration(seconds=86400, nanos=500_000_000)),
    ],
)
def test_seconds_become_durations(seconds: float, expected: Duration) -> None:
    assert convert._duration(seconds) == expected


@given(st.floats(0, 1e9))
def test_any_age_is_a_valid_duration_near_it(seconds: float) -> None:
    duration = convert._duration(seconds)
    assert 0 <= duration.nanos < 1_000_000_000
    assert abs(duration.seconds + duration.nanos / 1e9 - seconds) < 1e-6


# Batches


def resolved(version: str, url: str = URL) -> Answer:
    found = Route(KEY._replace(version=version), url, True, {}, 5, BIRTH, BIRTH)
    return Answer(Snapshot(found.key, found, 5), Source.LOCAL, 0.0)


def test_a_batch_that_fits_has_every_result() -> None:
    results = [convert.batch_result(KEY, resolved("v1"))] * 1000
    assert list(convert.batch_response(results).results) == results


def test_a_batch_that_does_not_fit_has_a_status_for_the_rest() -> None:
    large = convert.batch_result(KEY._replace(version="large"), resolved("large", "https://a/" + "x" * 100_000))
    small = convert.batch_result(KEY, resolved("v1"))
    response = convert.batch_response([large] * 50 + [small])

    assert 3_800_000 < response.ByteSize() <= convert.RESPONSE_BYTES
    answered = [result.HasField("route") for result in response.results]
    # In the order of the keys, and what is small enough behind them too.
    assert answered == [True] * 39 + [False] * 11 + [True]
    refused = response.results[39]
    assert (refused.key, refused.status.code) == (large.key, 8)
    assert b"RESPONSE_TOO_LARGE" in refused.status.details[0].value
