"""One client never sees a key go back: servers that are behind, epochs that end, answers that come late."""

from collections.abc import Callable, Iterator

import pytest

from pointsman import AsyncClient, Client, NotFound, PointsmanError, Resolution, RevisionNotReached, RouteNotFound
from pointsman.v1 import route_pb2
from tests.support.fake_route_service import FakeServer, View, serving

KEY = "team-a/payments/prod/v2"
OTHER = "team-a/payments/prod/v3"
OLD, NEW = "https://old.internal", "https://new.internal"


@pytest.fixture
def behind(server: FakeServer) -> Iterator[FakeServer]:
    """A second server on the same store, whose caches are from before the route got its new URL."""
    server.add(KEY, OLD)
    server.add(OTHER, OLD)
    with serving(FakeServer()) as second:
        second.routes, second.changes = server.routes, server.changes
        second.stale = server.view
        change(server, KEY, NEW)
        yield second


def change(server: FakeServer, key: str, url: str) -> None:
    route = next(route for name, route in server.routes.items() if "/".join(name) == key)
    server._write(route_pb2.CHANGE_KIND_UPDATED, route.key, url, True, {})


def both(server: FakeServer, behind: FakeServer) -> str:
    """A target that takes both in turn."""
    return f"ipv4:{server.target},{behind.target}"


def ask_until_both_answered(server: FakeServer, behind: FakeServer, ask: Callable[[], Resolution]) -> list[int]:
    """Ask until each has been asked three times after the first answered."""
    while not server.calls:
        ask()
    revisions, before = [ask().route.revision], len(behind.calls)
    while len(behind.calls) < before + 3 or len(server.calls) < 4:
        revisions.append(ask().route.revision)
    return revisions


class TestResolve:
    def test_a_key_never_goes_back_from_one_server_to_another(self, server: FakeServer, behind: FakeServer) -> None:
        with Client(both(server, behind)) as client:
            revisions = ask_until_both_answered(server, behind, lambda: client.resolve(KEY))
        assert revisions == sorted(revisions)

    def test_without_a_floor_it_does(self, server: FakeServer, behind: FakeServer) -> None:
        with Client(both(server, behind)) as client:
            revisions = ask_until_both_answered(server, behind, lambda: client.resolve(KEY, min_revision=0))
        assert revisions != sorted(revisions)

    async def test_nor_with_the_asyncio_client(self, server: FakeServer, behind: FakeServer) -> None:
        async with AsyncClient(both(server, behind)) as client:
            while not (server.calls and behind.calls):
                await client.resolve(OTHER)
            revisions = [(await client.resolve(KEY, min_revision=3)).route.revision]
            while len(behind.called("Resolve")) < 6 or len(server.called("Resolve")) < 6:
                revisions.append((await client.resolve(KEY)).route.revision)
        assert set(revisions) == {3}

    def test_the_revision_of_the_route_is_asked_for_and_not_that_of_the_answer(
        self, client: Client, server: FakeServer
    ) -> None:
        server.add(KEY, OLD)
        server.add(OTHER, OLD)
        assert [client.resolve(KEY).as_of_revision for _ in range(2)] == [2, 2]
        asked = server.calls[1].request
        assert (asked.min_revision, asked.epoch) == (1, "epoch-1")

    def test_absence_counts_as_of_its_revision(self, client: Client, server: FakeServer) -> None:
        server.add(OTHER, OLD)
        for _ in range(2):
            with pytest.raises(RouteNotFound):
                client.resolve(KEY)
        assert server.calls[1].request.min_revision == 1

    def test_a_deleted_route_does_not_come_back(self, server: FakeServer, behind: FakeServer) -> None:
        with Client(server.target) as writer:
            writer.delete(KEY)
        with Client(both(server, behind)) as client:
            outcomes = list[str]()
            while len(behind.calls) < 4 or "RouteNotFound" not in outcomes:
                outcomes.append(outcome_of(client, KEY))
        first = outcomes.index("RouteNotFound")
        assert set(outcomes[first:]) == {"RouteNotFound"}

    def test_what_get_showed_counts_too(self, client: Client, server: FakeServer) -> None:
        server.add(OTHER, OLD)
        server.add(KEY, OLD)
        client.get(KEY)
        client.resolve(KEY)
        assert server.called("Resolve")[0].request.min_revision == 2

    def test_a_key_that_fell_out_of_memory_does_not_go_back(self, server: FakeServer, behind: FakeServer) -> None:
        with Client(both(server, behind), remembered_keys=1) as client:
            client.resolve(KEY, min_revision=3)
            client.resolve(OTHER, min_revision=0)
            while not (server.calls and behind.calls):
                client.resolve(OTHER, min_revision=0)
            assert {client.resolve(KEY).route.revision for _ in range(6)} == {3}

    def test_an_explicit_revision_is_sent_as_it_is(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, OLD)
        client.resolve(KEY)
        client.resolve(KEY, min_revision=0)
        client.resolve(KEY, min_revision=1)
        client.resolve(KEY, min_revision=1, epoch="epoch-1")
        sent = [(call.request.min_revision, call.request.epoch) for call in server.calls]
        assert sent[1:] == [(0, ""), (1, ""), (1, "epoch-1")]


class TestBatch:
    def test_no_key_goes_back(self, server: FakeServer, behind: FakeServer) -> None:
        with Client(both(server, behind)) as client:
            client.resolve(KEY, min_revision=3)
            before = len(behind.calls)
            while len(behind.calls) < before + 4:
                found = client.batch_resolve([OTHER, KEY, KEY])
                assert [result.unwrap().url for result in found] == [OLD, NEW, NEW]

    async def test_nor_with_the_asyncio_client(self, server: FakeServer, behind: FakeServer) -> None:
        async with AsyncClient(both(server, behind)) as client:
            await client.resolve(KEY, min_revision=3)
            before = len(behind.calls)
            while len(behind.calls) < before + 4:
                assert [result.unwrap().url for result in await client.batch_resolve([OTHER, KEY])] == [OLD, NEW]

    def test_only_keys_that_are_behind_are_asked_for_again(self, server: FakeServer, behind: FakeServer) -> None:
        with Client(behind.target) as client:
            client.resolve(KEY, min_revision=3)
            client.batch_resolve([OTHER, KEY])
        first, second = (call.request for call in behind.called("BatchResolve"))
        assert (len(first.keys), first.min_revision, first.epoch) == (2, 1, "epoch-1")
        assert ([key.version for key in second.keys], second.min_revision) == (["v2"], 3)

    def test_a_server_that_is_not_behind_is_asked_once(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, OLD)
        for _ in range(2):
            client.batch_resolve([KEY, OTHER])
        assert len(server.calls) == 2

    def test_what_it_shows_counts_key_by_key(self, client: Client, server: FakeServer) -> None:
        server.add(OTHER, OLD)
        server.add("a/b/c/d", OLD)
        client.batch_resolve([KEY, OTHER])
        for key in (OTHER, "a/b/c/d"):
            client.resolve(key)
        with pytest.raises(RouteNotFound):
            client.resolve(KEY)
        assert [call.request.min_revision for call in server.called("Resolve")] == [1, 1, 2]

    def test_without_a_floor_nothing_is_asked_for_again(self, behind: FakeServer) -> None:
        with Client(behind.target) as client:
            client.resolve(KEY, min_revision=3)
            assert client.batch_resolve([KEY], min_revision=0)[0].unwrap().url == OLD


class TestEpochs:
    def test_after_a_restore_what_was_seen_counts_for_nothing(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, OLD)
        backup = server.view
        client.update(KEY, url=NEW)
        assert client.resolve(KEY).url == NEW
        server.restore(backup, "epoch-2")
        assert client.resolve(KEY).url == OLD
        assert (client.last_revision, client.last_epoch) == (0, "epoch-2")
        client.resolve(KEY)
        assert (server.calls[-1].request.min_revision, server.calls[-1].request.epoch) == (1, "epoch-2")

    def test_a_key_that_was_never_seen_tells_of_the_new_epoch_too(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, OLD)
        backup = server.view
        client.resolve(KEY)
        server.restore(backup, "epoch-2")
        with pytest.raises(RouteNotFound):
            client.resolve(OTHER)
        assert client.last_epoch == "epoch-2"

    def test_a_server_that_still_answers_from_the_old_one_does_not_bring_it_back(
        self, client: Client, server: FakeServer
    ) -> None:
        server.add(KEY, OLD)
        backup = server.view
        client.resolve(KEY)
        server.restore(backup, "epoch-2")
        client.resolve(KEY)
        change(server, KEY, NEW)
        client.resolve(KEY)
        server.stale = View(backup.routes, 1000, "epoch-1")
        client.resolve(KEY, min_revision=0)
        assert client.last_epoch == "epoch-2"
        assert client.resolve(KEY).url == NEW

    def test_who_met_the_new_epoch_first_is_not_lost_to_the_old_one(self, server: FakeServer) -> None:
        server.add(KEY, OLD)
        backup, server.epoch = server.view, "epoch-2"
        change(server, KEY, NEW)
        with Client(server.target) as client:
            assert client.resolve(KEY).url == NEW
            server.stale = View(backup.routes, 1000, "epoch-1")
            assert client.resolve(KEY).url == NEW
            with pytest.raises(RouteNotFound) as absent:
                client.resolve(OTHER)
        assert absent.value.metadata["epoch"] == "epoch-2"

    def test_a_token_without_its_epoch_is_not_reached(self, server: FakeServer) -> None:
        server.add(KEY, OLD)
        server.epoch = "epoch-2"
        with Client(server.target, max_attempts=1) as client:
            with pytest.raises(RevisionNotReached):
                client.resolve(KEY, min_revision=9)
            assert client.resolve(KEY, min_revision=9, epoch="epoch-1").url == OLD


def outcome_of(client: Client, key: str) -> str:
    try:
        return client.resolve(key).url
    except NotFound as error:
        return type(error).__name__
    except PointsmanError as error:
        return f"failed: {error}"
