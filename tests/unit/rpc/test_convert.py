"""Requests to what the core understands, and its answers to responses."""

import asyncio
import base64
from collections.abc import Sequence
from typing import Any, cast

import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import change_to_message, key_to_message, route_to_message
from pointsman_server.domain.errors import InvalidField, RouteInactive, RouteNotFound, StoreUnavailable
from pointsman_server.domain.routes import Change, ChangeKind, Route, RouteKey, Snapshot
from pointsman_server.ports.store import ChangeQuery, RouteQuery
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.rpc import convert
from pointsman_server.rpc.call import Call
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.writes.mutations import Activate, Create, Deactivate, Delete, Update
from tests.support.fakes import BIRTH

KEY = RouteKey("team-a", "payments", "prod", "v1")
URL = "https://payments.internal:8443"


class FakeCall:
    """A call that is known without a server."""

    actor = "alice"
    traceparent = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


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
    assert intent.traceparent == FakeCall.traceparent


def fingerprint(request: convert.Mutation) -> bytes:
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


# Pages of routes


def routes(count: int) -> list[Route]:
    return [route(f"v{number:04}") for number in range(count)]


@pytest.mark.parametrize(("asked", "limit"), [(0, 101), (1, 2), (1000, 1001), (1001, 1001), (2**31 - 1, 1001)])
def test_a_page_is_100_unless_asked_at_most_1000_and_one_more_is_read_to_know_of_the_next(
    asked: int, limit: int
) -> None:
    assert convert.route_query(pb.ListRequest(page_size=asked)).limit == limit
    assert convert.change_query(pb.ListChangesRequest(page_size=asked)).limit == limit


def test_a_list_carries_every_field() -> None:
    request = pb.ListRequest(tenant="a", service="b", env="c", active=False, page_size=7)
    assert convert.route_query(request) == RouteQuery("a", "b", "c", False, None, 8)
    assert convert.route_query(pb.ListRequest()) == RouteQuery("", "", "", None, None, 101)


@pytest.mark.parametrize("found", [0, 1, 9, 10])
def test_the_last_page_has_no_token(found: int) -> None:
    response = page_of(pb.ListRequest(page_size=10), routes(found))
    assert len(response.routes) == found
    assert response.next_page_token == ""


def test_a_page_with_one_more_behind_it_has_a_token_that_goes_on_after_its_last_route() -> None:
    request = pb.ListRequest(tenant="team-a", page_size=10)
    response = page_of(request, routes(11))
    assert [each.key.version for each in response.routes] == [f"v{number:04}" for number in range(10)]
    request.page_token = response.next_page_token
    assert convert.route_query(request).after == routes(10)[-1].key


def page_of(request: pb.ListRequest, found: Sequence[Route]) -> pb.ListResponse:
    return asyncio.run(convert.list_response(request, found, FairShare()))


def token_of(request: pb.ListRequest) -> str:
    return page_of(request, routes(2)).next_page_token


def test_the_size_of_a_page_may_change_between_pages() -> None:
    token = token_of(pb.ListRequest(page_size=1))
    assert convert.route_query(pb.ListRequest(page_size=500, page_token=token)).limit == 501


OTHER_LISTS = [
    pb.ListRequest(),
    pb.ListRequest(tenant="team-b"),
    pb.ListRequest(service="team-a"),
    pb.ListRequest(tenant="team-a", service="payments"),
    pb.ListRequest(tenant="team-a", env="prod"),
    pb.ListRequest(tenant="team-a", active=False),
    pb.ListRequest(tenant="team-a", active=True),
]


@pytest.mark.parametrize("other", OTHER_LISTS, ids=str)
def test_a_token_of_another_list_is_refused(other: pb.ListRequest) -> None:
    other.page_token = token_of(pb.ListRequest(tenant="team-a", page_size=1))
    with pytest.raises(InvalidField, match="page_token: must be the next_page_token"):
        convert.route_query(other)


# Pages of changes


def test_a_list_of_changes_carries_every_field() -> None:
    request = pb.ListChangesRequest(
        tenant="a",
        service="b",
        env="c",
        version="d",
        after_revision=3,
        before_revision=9,
        actor="alice",
        newest_first=True,
        page_size=7,
    )
    assert convert.change_query(request) == ChangeQuery("a", "b", "c", "d", "alice", 3, 9, True, 8)


def page_of_changes(request: pb.ListChangesRequest, revisions: Sequence[int]) -> pb.ListChangesResponse:
    changes = [change(revision) for revision in revisions]
    return asyncio.run(convert.list_changes_response(request, changes, FairShare()))


def test_the_next_page_of_changes_goes_on_after_the_last_revision_of_this_one() -> None:
    request = pb.ListChangesRequest(after_revision=3, before_revision=100, page_size=2)
    response = page_of_changes(request, [4, 7, 8])
    assert list(response.changes) == [change_to_message(change(revision)) for revision in (4, 7)]
    request.page_token = response.next_page_token
    query = convert.change_query(request)
    assert (query.after_revision, query.before_revision) == (7, 100)


def test_with_the_newest_first_it_goes_on_before_the_last_revision_of_this_one() -> None:
    request = pb.ListChangesRequest(after_revision=3, before_revision=100, newest_first=True, page_size=2)
    request.page_token = page_of_changes(request, [99, 50, 10]).next_page_token
    query = convert.change_query(request)
    assert (query.after_revision, query.before_revision) == (3, 50)


@pytest.mark.parametrize("found", [0, 1, 2])
def test_the_last_page_of_changes_has_no_token(found: int) -> None:
    assert page_of_changes(pb.ListChangesRequest(page_size=2), [4, 7][:found]).next_page_token == ""


@pytest.mark.parametrize(
    "other",
    [
        pb.ListChangesRequest(),
        pb.ListChangesRequest(tenant="team-a", version="v1"),
        pb.ListChangesRequest(tenant="team-a", actor="alice"),
        pb.ListChangesRequest(tenant="team-a", newest_first=True),
        pb.ListChangesRequest(tenant="team-a", after_revision=1),
        pb.ListChangesRequest(tenant="team-a", before_revision=1),
    ],
    ids=str,
)
def test_a_token_of_another_list_of_changes_is_refused(other: pb.ListChangesRequest) -> None:
    other.page_token = page_of_changes(pb.ListChangesRequest(tenant="team-a", page_size=1), [4, 7]).next_page_token
    with pytest.raises(InvalidField, match="page_token"):
        convert.change_query(other)


# RevisionTokens that we did not make


def forged(token: str, position: bytes) -> str:
    """Keep the digest of a token and replace its position: the digest is no secret."""
    digest = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[:8]
    return base64.urlsafe_b64encode(digest + position).decode().rstrip("=")


def check_refused(routes_token: str, changes_token: str) -> None:
    with pytest.raises(InvalidField) as refused:
        convert.route_query(pb.ListRequest(page_token=routes_token))
    assert [violation.field for violation in refused.value.violations] == ["page_token"]
    with pytest.raises(InvalidField) as refused:
        convert.change_query(pb.ListChangesRequest(page_token=changes_token))
    assert [violation.field for violation in refused.value.violations] == ["page_token"]


@pytest.mark.parametrize("token", ["x", "AAAA", "AAAAAAAAAAA", "????", "ü", "=", "a" * 1024, "\n"])
def test_a_token_that_is_none_is_refused(token: str) -> None:
    check_refused(token, token)


@given(st.text(min_size=1, max_size=100))
def test_any_text_that_is_no_token_is_refused_and_nothing_worse(token: str) -> None:
    check_refused(token, token)


ROUTES_TOKEN = token_of(pb.ListRequest(page_size=1))
CHANGES_TOKEN = page_of_changes(pb.ListChangesRequest(page_size=1), [4, 7]).next_page_token


@pytest.mark.parametrize(
    "position",
    [b"", b"x", b"-1", b"1.5", b"1_0", b" 7", b"/", b"///", b"a/b/c/", b"a/b/c/d e", b"a/b/c/\xff", b"9" * 5000],
)
def test_a_token_with_a_tampered_position_is_refused(position: bytes) -> None:
    check_refused(forged(ROUTES_TOKEN, position), forged(CHANGES_TOKEN, position))


def test_a_position_of_the_other_kind_is_refused() -> None:
    check_refused(forged(ROUTES_TOKEN, b"7"), forged(CHANGES_TOKEN, b"a/b/c/d"))


@pytest.mark.parametrize("revision", [b"0", b"9223372036854775808", b"99999999999999999999999"])
def test_a_position_that_is_no_revision_is_refused(revision: bytes) -> None:
    check_refused("x", forged(CHANGES_TOKEN, revision))


@given(st.binary(max_size=40))
def test_any_tampered_position_is_refused_or_read_and_nothing_worse(position: bytes) -> None:
    for read in (
        lambda: convert.route_query(pb.ListRequest(page_token=forged(ROUTES_TOKEN, position))),
        lambda: convert.change_query(pb.ListChangesRequest(page_token=forged(CHANGES_TOKEN, position))),
    ):
        try:
            read()
        except InvalidField:
            continue
