"""change_sets: commit, revert and diff."""

from datetime import UTC, datetime, timedelta

import grpc
import pytest

from pointsman import (
    Activate,
    AsyncClient,
    ChangedSince,
    ChangeKind,
    Client,
    Create,
    Deactivate,
    Delete,
    DeleteTraffic,
    InvalidArgument,
    MutationResult,
    Refusal,
    RevisionCompacted,
    RevisionInFuture,
    Route,
    RouteExists,
    RouteInUse,
    RouteNotFound,
    SetTraffic,
    Traffic,
    Unimplemented,
    Update,
)
from tests.support.fake_route_service import T0, Failure, FakeServer

FAMILY = "team-a/payments/prod"
V1, V2 = f"{FAMILY}/v1", f"{FAMILY}/v2"


class TestCommit:
    def test_makes_all_mutations_as_one_change_set(self, client: Client) -> None:
        client.create("a/b/c/d", "https://d.internal")
        result = client.commit(
            [
                Create(V1, "https://v1.internal", labels={"tier": "gold"}),
                Create(V2, "https://v2.internal", active=False),
                Activate(V1),
                SetTraffic(FAMILY, {"v1": 10_000}, fallbacks=["v2"]),
                Update("a/b/c/d", url="https://new.internal", expected_revision=1),
            ],
            reason="release 2",
        )
        assert (result.change_set_id, result.size, result.revision) == (2, 4, 5)
        assert result.mutations == (
            MutationResult(2, 1),
            MutationResult(3, 1),
            MutationResult(0, 0),
            MutationResult(4, 1),
            MutationResult(5, 1),
        )
        assert {(each.change_set_id, each.change_set_size, each.reason) for each in result.changes} == {
            (2, 4, "release 2")
        }
        assert client.last_revision == 5
        assert client.select(FAMILY).version == "v1"

    def test_every_kind_can_be_undone_by_the_other(self, client: Client, server: FakeServer) -> None:
        client.commit([Create(V1, "https://v1.internal"), SetTraffic(FAMILY, {"v1": 10_000})])
        client.commit([DeleteTraffic(FAMILY), Deactivate(V1), Delete(V1)])
        assert (server.state(), server.traffic) == ({}, {})

    def test_of_which_one_is_refused_changes_nothing_and_names_each(self, client: Client, server: FakeServer) -> None:
        client.create(V1, "https://v1.internal")
        before = server.view
        with pytest.raises(RouteExists) as caught:
            client.commit([Create(V2, "https://v2.internal"), Create(V1, "https://v1.internal"), Delete("a/b/c/d")])
        assert caught.value.metadata["index"] == "1"
        assert caught.value.refusals == (
            Refusal(1, "ROUTE_EXISTS", "route exists"),
            Refusal(2, "ROUTE_NOT_FOUND", "no route a/b/c/d"),
        )
        assert server.view == before
        assert client.last_revision == 1

    def test_a_dry_run_says_what_would_be_done(self, client: Client, server: FakeServer) -> None:
        result = client.commit([Create(V1, "https://v1.internal")], dry_run=True)
        assert (result.change_set_id, [each.kind for each in result.changes]) == (1, [ChangeKind.CREATED])
        assert (server.changes, client.last_revision) == ([], 0)

    def test_a_malformed_mutation_is_named_before_anything_is_sent(self, client: Client, server: FakeServer) -> None:
        with pytest.raises(InvalidArgument) as caught:
            client.commit([Create(V1, "https://v1.internal"), Delete("a/b"), SetTraffic(FAMILY, {"v1": 2**40})])
        assert caught.value.refusals[0].index == 1
        assert server.calls == []

    def test_what_is_no_mutation_is_refused(self, client: Client) -> None:
        with pytest.raises(TypeError, match="str is no mutation"):
            client.commit(["create"])  # type: ignore[list-item]

    def test_is_tried_again_under_the_same_id(self, client: Client, server: FakeServer) -> None:
        server.fail("Commit", Failure(grpc.StatusCode.UNAVAILABLE, "later", "STORE_UNAVAILABLE"))
        assert client.commit([Create(V1, "https://v1.internal")]).size == 1
        first, second = server.called("Commit")
        assert first.request == second.request
        assert first.request.request_id
        assert not first.request.mutations[0].create.request_id

    def test_says_how_many_changes_did_not_fit(self, client: Client, server: FakeServer) -> None:
        server.largest_answer = 1
        result = client.commit([Create(V1, "https://v1.internal"), Create(V2, "https://v2.internal")])
        assert (len(result.changes), result.omitted_change_count, result.size) == (1, 1, 2)


class TestDrain:
    def test_is_refused_while_somebody_reads(self, client: Client, server: FakeServer) -> None:
        client.create(V1, "https://v1.internal")
        reader = server.usage.readers.add(subject="cart")
        reader.last_read_time.FromSeconds(T0)
        for call in (
            lambda: client.deactivate(V1, if_unused_for=timedelta(minutes=10)),
            lambda: client.delete(V1, if_unused_for=timedelta(minutes=10)),
            lambda: client.commit([Deactivate(V1, if_unused_for=timedelta(minutes=10))]),
        ):
            with pytest.raises(RouteInUse) as caught:
                call()
            assert caught.value.readers == (("cart", datetime.fromtimestamp(T0, UTC)),)
        assert server.called("Deactivate")[0].request.if_unused_for.ToTimedelta() == timedelta(minutes=10)
        assert client.deactivate(V1).active is False

    def test_needs_a_length_of_time(self, client: Client) -> None:
        with pytest.raises(InvalidArgument, match="longer than 0"):
            client.delete(V1, if_unused_for=timedelta(0))


class TestRevert:
    @pytest.fixture(autouse=True)
    def _change_set(self, client: Client) -> None:
        client.create(V1, "https://v1.internal")
        client.commit([Create(V2, "https://v2.internal"), SetTraffic(FAMILY, {"v2": 10_000}), Deactivate(V1)])

    def test_puts_back_what_a_change_set_changed(self, client: Client, server: FakeServer) -> None:
        result = client.revert(2, reason="too soon")
        assert (result.change_set_id, result.size, client.last_revision) == (5, 3, 7)
        assert server.state() == {V1: ("https://v1.internal", True, {})}
        assert server.traffic == {}

    def test_puts_back_a_range(self, client: Client, server: FakeServer) -> None:
        client.revert((4, 4))
        assert server.state()[V1][1] is True
        assert server.state()[V2][1] is True

    def test_refuses_where_something_was_changed_since_unless_forced(self, client: Client, server: FakeServer) -> None:
        client.update(V2, url="https://new.internal")
        with pytest.raises(ChangedSince) as caught:
            client.revert(2)
        assert caught.value.count == 1
        assert [violation.field for violation in caught.value.violations] == [V2]
        client.revert(2, force=True)
        assert server.state() == {V1: ("https://v1.internal", True, {})}

    def test_a_dry_run_changes_nothing(self, client: Client, server: FakeServer) -> None:
        before = server.view
        assert client.revert(2, dry_run=True).size == 3
        assert server.view == before

    def test_what_is_no_change_set_is_refused(self, client: Client) -> None:
        with pytest.raises(InvalidArgument, match="no change set begins"):
            client.revert(3)


class TestDiff:
    @pytest.fixture(autouse=True)
    def _changes(self, client: Client) -> None:
        client.create(V1, "https://v1.internal")
        client.create(V2, "https://v2.internal")
        client.set_traffic(FAMILY, {"v1": 10_000})
        client.set_traffic(FAMILY, {"v1": 5000, "v2": 5000})
        client.deactivate(V1)
        client.activate(V1)
        client.update(V2, url="https://new.internal")
        client.create("a/b/c/d", "https://d.internal")
        client.delete("a/b/c/d")

    def test_has_the_net_change_of_each_key_in_their_order(self, client: Client) -> None:
        traffic, route = client.diff(3)
        assert (str(traffic.key), str(route.key)) == (FAMILY, V2)
        assert isinstance(traffic.before, Traffic)
        assert isinstance(traffic.after, Traffic)
        assert (traffic.before.weights, traffic.after.weights) == ({"v1": 10_000}, {"v1": 5000, "v2": 5000})
        assert isinstance(route.before, Route)
        assert isinstance(route.after, Route)
        assert (route.before.url, route.after.url) == ("https://v2.internal", "https://new.internal")
        assert (route.change_count, route.last_change.revision) == (1, 7)

    def test_what_came_has_no_before_and_what_went_no_after(self, client: Client) -> None:
        assert [each.before for each in client.diff(0, 2)] == [None, None]
        [gone] = client.diff(8, 9)
        assert (str(gone.key), gone.after) == ("a/b/c/d", None)

    def test_takes_times_too_and_filters(self, client: Client, server: FakeServer) -> None:
        start, end = (datetime.fromtimestamp(T0 + revision, UTC) for revision in (6, 8))
        assert [str(each.key) for each in client.diff(start, end)] == ["a/b/c/d", V2]
        assert [str(each.key) for each in client.diff(start, end, tenant="team-a")] == [V2]
        server.largest_page = 1
        assert len(client.diff(0)) == 3

    def test_needs_a_time_zone(self, client: Client) -> None:
        with pytest.raises(InvalidArgument, match="time zone"):
            client.diff(datetime(2026, 11, 20))  # noqa: DTZ001 - that is what is tested

    def test_does_not_guess_what_is_not_known(self, client: Client, server: FakeServer) -> None:
        server.compacted = 3
        with pytest.raises(RevisionCompacted) as compacted:
            client.diff(2)
        assert compacted.value.oldest_revision == 3
        with pytest.raises(RevisionInFuture) as future:
            client.diff(3, 10)
        assert future.value.last_revision == 9


class TestMoments:
    def test_a_route_and_a_list_are_as_they_were(self, client: Client) -> None:
        client.create(V1, "https://v1.internal")
        client.deactivate(V1)
        assert client.get(V1, as_of=1).active is True
        assert client.get(V1, as_of=datetime.fromtimestamp(T0 + 1, UTC)).active is True
        assert [route.active for route in client.list(as_of=1)] == [True]
        assert list(client.list(as_of=0)) == []
        with pytest.raises(RouteNotFound):
            client.get(V1, as_of=0)

    def test_changes_are_those_between_two_times(self, client: Client) -> None:
        for number in range(4):
            client.create(f"{FAMILY}/v{number}", "https://v.internal")
        after, before = (datetime.fromtimestamp(T0 + revision, UTC) for revision in (1, 3))
        assert [change.revision for change in client.changes(after_time=after, before_time=before)] == [2, 3]

    @pytest.mark.parametrize("moment", [2**63, datetime.max.replace(tzinfo=UTC)])
    def test_what_cannot_be_sent_is_named(self, client: Client, moment: int | datetime) -> None:
        if isinstance(moment, int):
            with pytest.raises(InvalidArgument, match="as_of"):
                client.get(V1, as_of=moment)
        else:
            with pytest.raises(RouteNotFound):
                client.get(V1, as_of=moment)


class TestServerOfAnEarlierRelease:
    """It ignores fields that it does not know, so its answer is to another question."""

    @pytest.fixture(autouse=True)
    def _earlier(self, client: Client, server: FakeServer) -> None:
        client.create(V1, "https://v1.internal")
        client.create(V2, "https://v2.internal")
        server.earlier = True

    @pytest.mark.parametrize("moment", [1, datetime.fromtimestamp(T0 + 1, UTC)])
    def test_does_not_tell_what_is_as_what_was(self, client: Client, moment: int | datetime) -> None:
        for call in (
            lambda: client.get(V1, as_of=moment),
            lambda: list(client.list(as_of=moment)),
            lambda: client.diff(moment),
        ):
            with pytest.raises(Unimplemented, match="older than this client"):
                call()

    def test_does_not_tell_every_change_as_those_between(self, client: Client) -> None:
        moment = datetime.fromtimestamp(T0 + 1, UTC)
        with pytest.raises(Unimplemented, match="after_time and before_time"):
            list(client.changes(after_time=moment))
        with pytest.raises(Unimplemented):
            list(client.changes(before_time=moment))
        assert len(list(client.changes())) == 2

    def test_is_asked_as_before(self, client: Client) -> None:
        assert client.get(V1).url == "https://v1.internal"
        assert len(list(client.list())) == 2


async def test_does_the_same_in_asyncio(async_client: AsyncClient, server: FakeServer) -> None:
    result = await async_client.commit([Create(V1, "https://v1.internal"), Create(V2, "https://v2.internal")])
    assert [str(each.key) for each in await async_client.diff(0)] == [V1, V2]
    assert (await async_client.revert(result.change_set_id)).size == 2
    assert await async_client.diff(0) == ()
    assert server.state() == {}
