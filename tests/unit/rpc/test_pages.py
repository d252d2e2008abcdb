"""The pages of List and ListChanges, and the tokens between them."""

import asyncio
import base64
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, cast

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import AsOf
from pointsman_server.domain.codec import change_to_message
from pointsman_server.domain.errors import HistoryCompacted, InvalidField
from pointsman_server.domain.routes import Change, ChangeKind, Route, RouteKey
from pointsman_server.ports.store import ChangeQuery, RouteQuery
from pointsman_server.rpc import pages
from pointsman_server.runtime.fair_share import FairShare
from tests.support.fakes import BIRTH

KEY = RouteKey("team-a", "payments", "prod", "v1")
URL = "https://payments.internal:8443"


def route(version: str = "v1") -> Route:
    return Route(KEY._replace(version=version), URL, True, {"tier": "gold"}, 5, BIRTH, BIRTH)


def change(revision: int) -> Change:
    return Change(revision, "id", ChangeKind.CREATED, KEY, None, route(), "alice", "", "", BIRTH, "epoch")


# Pages of routes


def routes(count: int) -> list[Route]:
    return [route(f"v{number:04}") for number in range(count)]


@pytest.mark.parametrize(("asked", "limit"), [(0, 101), (1, 2), (1000, 1001), (1001, 1001), (2**31 - 1, 1001)])
def test_a_page_is_100_unless_asked_at_most_1000_and_one_more_is_read_to_know_of_the_next(
    asked: int, limit: int
) -> None:
    assert pages.route_query(pb.ListRequest(page_size=asked)).limit == limit
    assert pages.change_query(pb.ListChangesRequest(page_size=asked)).limit == limit


def test_a_list_carries_every_field() -> None:
    request = pb.ListRequest(tenant="a", service="b", env="c", active=False, page_size=7)
    assert pages.route_query(request) == RouteQuery("a", "b", "c", False, None, 8)
    assert pages.route_query(pb.ListRequest()) == RouteQuery("", "", "", None, None, 101)


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
    assert pages.route_query(request).after == routes(10)[-1].key


def page_of(request: pb.ListRequest, found: Sequence[Route]) -> pb.ListResponse:
    return asyncio.run(pages.list_response(request, found, FairShare()))


def token_of(request: pb.ListRequest) -> str:
    return page_of(request, routes(2)).next_page_token


def test_the_size_of_a_page_may_change_between_pages() -> None:
    token = token_of(pb.ListRequest(page_size=1))
    assert pages.route_query(pb.ListRequest(page_size=500, page_token=token)).limit == 501


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
        pages.route_query(other)


def large(routes: list[Route], size: int) -> list[Route]:
    """Make each route take ``size`` bytes or a little more."""
    return [replace(each, url="https://a/" + "x" * size) for each in routes]


def test_a_page_ends_before_it_is_too_large_for_a_client_and_the_next_goes_on() -> None:
    found = large(routes(101), 78_000)
    request, seen = pb.ListRequest(), []
    while True:
        after = pages.route_query(request).after
        page = page_of(request, [each for each in found if after is None or each.key > after][:101])
        assert page.ByteSize() <= 4 * 1024 * 1024
        seen += [each.key.version for each in page.routes]
        if not page.next_page_token:
            break
        assert page.ByteSize() > 3_900_000
        request.page_token = page.next_page_token

    assert seen == [each.key.version for each in found]


def test_a_page_has_one_entry_at_least() -> None:
    page = page_of(pb.ListRequest(), large(routes(2), 5_000_000))

    assert len(page.routes) == 1
    assert page.next_page_token


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
    assert pages.change_query(request) == ChangeQuery("a", "b", "c", "d", "alice", 3, 9, True, 8)


def page_of_changes(request: pb.ListChangesRequest, revisions: Sequence[int]) -> pb.ListChangesResponse:
    changes = [change(revision) for revision in revisions]
    return asyncio.run(pages.list_changes_response(request, changes, FairShare()))


def test_the_next_page_of_changes_goes_on_after_the_last_revision_of_this_one() -> None:
    request = pb.ListChangesRequest(after_revision=3, before_revision=100, page_size=2)
    response = page_of_changes(request, [4, 7, 8])
    assert list(response.changes) == [change_to_message(change(revision)) for revision in (4, 7)]
    request.page_token = response.next_page_token
    query = pages.change_query(request)
    assert (query.after_revision, query.before_revision) == (7, 100)


def test_with_the_newest_first_it_goes_on_before_the_last_revision_of_this_one() -> None:
    request = pb.ListChangesRequest(after_revision=3, before_revision=100, newest_first=True, page_size=2)
    request.page_token = page_of_changes(request, [99, 50, 10]).next_page_token
    query = pages.change_query(request)
    assert (query.after_revision, query.before_revision) == (3, 50)


def test_a_page_of_changes_ends_before_it_is_too_large_for_a_client() -> None:
    [after] = large(routes(1), 156_000)
    changes = [replace(change(revision), after=after) for revision in range(1, 101)]
    request = pb.ListChangesRequest()
    page = asyncio.run(pages.list_changes_response(request, changes, FairShare()))
    request.page_token = page.next_page_token

    assert 3_800_000 < page.ByteSize() <= 4 * 1024 * 1024
    assert pages.change_query(request).after_revision == page.changes[-1].revision == len(page.changes)


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
        pages.change_query(other)


# RevisionTokens that we did not make


def forged(token: str, position: bytes) -> str:
    """Keep the digest of a token and replace its position: the digest is no secret."""
    digest = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[:8]
    return base64.urlsafe_b64encode(digest + position).decode().rstrip("=")


def check_refused(routes_token: str, changes_token: str) -> None:
    with pytest.raises(InvalidField) as refused:
        pages.route_query(pb.ListRequest(page_token=routes_token))
    assert [violation.field for violation in refused.value.violations] == ["page_token"]
    with pytest.raises(InvalidField) as refused:
        pages.change_query(pb.ListChangesRequest(page_token=changes_token))
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
        lambda: pages.route_query(pb.ListRequest(page_token=forged(ROUTES_TOKEN, position))),
        lambda: pages.change_query(pb.ListChangesRequest(page_token=forged(CHANGES_TOKEN, position))),
    ):
        try:
            query = read()
        except InvalidField:
            continue
        assert query.limit > 0


# As of a moment


class Seconds:
    """A history with one change a second since ``BIRTH``, of which ``compacted`` are gone."""

    def __init__(self, compacted: int = 0) -> None:
        self.compacted = compacted
        self.asked: list[float] = []

    async def revision_at(self, moment: datetime) -> int:
        seconds = int((moment - BIRTH).total_seconds())
        self.asked.append(seconds)
        if 0 <= seconds < self.compacted:
            raise HistoryCompacted(seconds, self.compacted)
        return max(0, seconds)


def at(seconds: int) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(BIRTH + timedelta(seconds=seconds))
    return message


async def test_a_list_of_now_is_of_no_revision() -> None:
    assert await pages.revision_of(pb.ListRequest(), cast("Any", Seconds())) is None


async def test_all_pages_are_as_of_the_revision_of_the_first() -> None:
    history = cast("Any", Seconds())
    request = pb.ListRequest(page_size=2, as_of=AsOf(time=at(7)))
    revision = await pages.revision_of(request, history)
    response = await pages.list_response(request, routes(3), FairShare(), revision)
    assert (revision, response.as_of_revision) == (7, 7)

    request.page_token = response.next_page_token
    history.asked.clear()
    assert await pages.revision_of(request, history) == 7
    assert history.asked == []
    assert pages.route_query(request).after == routes(3)[1].key


async def test_a_page_token_belongs_to_its_moment() -> None:
    request = pb.ListRequest(page_size=2, as_of=AsOf(revision=7))
    response = await pages.list_response(request, routes(3), FairShare(), 7)
    for moment in (AsOf(revision=8), None):
        with pytest.raises(InvalidField):
            pages.route_query(pb.ListRequest(page_size=2, as_of=moment, page_token=response.next_page_token))


@pytest.mark.parametrize(
    ("fields", "after", "before"),
    [
        ({}, 0, 0),
        ({"after_time": at(5)}, 5, 0),
        ({"before_time": at(9)}, 0, 10),
        ({"after_time": at(5), "before_time": at(9)}, 5, 10),
        ({"after_time": at(5), "after_revision": 6, "before_time": at(9), "before_revision": 8}, 6, 8),
        ({"after_time": at(5), "after_revision": 4, "before_time": at(9), "before_revision": 20}, 5, 10),
        ({"before_time": at(-3)}, 0, 1),
    ],
)
async def test_times_narrow_the_revisions(fields: dict[str, Any], after: int, before: int) -> None:
    request = pb.ListChangesRequest(**fields)
    query = await pages.within_times(pages.change_query(request), request, cast("Any", Seconds()))
    assert (query.after_revision, query.before_revision) == (after, before)


@pytest.mark.parametrize("newest_first", [False, True])
async def test_a_next_page_goes_on_where_the_page_before_ended(newest_first: bool) -> None:
    """What it began at may be compacted meanwhile, or later changes may have come."""
    request = pb.ListChangesRequest(newest_first=newest_first, page_size=1, after_time=at(5), before_time=at(90))
    found = [change(50), change(40 if newest_first else 60)]
    request.page_token = (await pages.list_changes_response(request, found, FairShare())).next_page_token
    history = Seconds()
    query = await pages.within_times(pages.change_query(request), request, cast("Any", history))
    assert (query.after_revision, query.before_revision) == ((5, 50) if newest_first else (50, 91))
    assert history.asked == [5 if newest_first else 90]


@pytest.mark.parametrize("name", ["after_time", "before_time"])
async def test_a_page_token_belongs_to_its_times(name: str) -> None:
    request = pb.ListChangesRequest(page_size=1, **{name: at(5)})  # type: ignore[arg-type]
    token = (await pages.list_changes_response(request, [change(7), change(8)], FairShare())).next_page_token
    for other in (pb.ListChangesRequest(page_size=1), pb.ListChangesRequest(**{name: at(6)})):  # type: ignore[arg-type]
        other.page_token = token
        with pytest.raises(InvalidField):
            pages.change_query(other)


async def test_a_time_before_what_is_kept_is_refused() -> None:
    request = pb.ListChangesRequest(after_time=at(5))
    with pytest.raises(HistoryCompacted):
        await pages.within_times(pages.change_query(request), request, cast("Any", Seconds(compacted=6)))


def test_a_range_begins_where_a_revision_or_a_time_says_so() -> None:
    assert not pages.begins(pb.ListChangesRequest(before_revision=5, before_time=at(5)))
    assert pages.begins(pb.ListChangesRequest(after_revision=5))
    assert pages.begins(pb.ListChangesRequest(after_time=at(0)))


@pytest.mark.parametrize("time", [Timestamp(seconds=2**63 - 1), Timestamp(nanos=2**31 - 1), Timestamp(nanos=-1)])
@pytest.mark.parametrize("name", pages.TIMES)
def test_a_time_out_of_range_is_no_error_of_the_page_token(name: str, time: Timestamp) -> None:
    request = pb.ListChangesRequest()
    getattr(request, name).CopyFrom(time)
    assert pages.change_query(request).after_revision == 0
