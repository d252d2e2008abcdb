"""Client: what each method sends, returns and raises."""

import threading
import time
from datetime import UTC, datetime, timedelta

import grpc
import pytest

from pointsman import (
    Activation,
    Change,
    ChangeKind,
    Client,
    Consistency,
    DeadlineExceeded,
    ImportedRoute,
    ImportResult,
    InvalidArgument,
    Propagation,
    Reader,
    Resolution,
    RevisionMismatch,
    RouteExists,
    RouteInactive,
    RouteKey,
    RouteNotFound,
    Source,
    Unavailable,
    Usage,
    WatcherProgress,
    chunks,
)
from pointsman.v1 import propagation_pb2
from tests.support.fake_route_service import T0, Failure, FakeServer

KEY = "team-a/payments/prod/v2"
URL = "https://payments-v2.internal:8443"
UNAVAILABLE = Failure(grpc.StatusCode.UNAVAILABLE, "the store cannot be reached", "STORE_UNAVAILABLE")


def pushback(milliseconds: int) -> Failure:
    trailers = (("grpc-retry-pushback-ms", str(milliseconds)),)
    return Failure(grpc.StatusCode.UNAVAILABLE, "later", "STORE_UNAVAILABLE", trailers=trailers)


class TestResolve:
    def test_returns_the_live_route_with_its_provenance(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, URL, labels={"tier": "gold"})
        resolution = client.resolve(KEY)
        assert isinstance(resolution, Resolution)
        assert resolution.url == URL
        assert resolution.route.key == RouteKey("team-a", "payments", "prod", "v2")
        assert resolution.route.labels == {"tier": "gold"}
        assert resolution.source is Source.LOCAL
        assert resolution.age == timedelta(milliseconds=250)
        assert (resolution.as_of_revision, resolution.epoch) == (1, "epoch-1")

    def test_takes_a_key_as_text_or_as_a_value(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, URL)
        assert client.resolve(RouteKey.parse(KEY)) == client.resolve(KEY)

    def test_a_malformed_key_is_refused_before_any_call(self, client: Client, server: FakeServer) -> None:
        with pytest.raises(InvalidArgument):
            client.resolve("team-a/payments")
        assert server.calls == []

    def test_an_absent_route_is_not_found(self, client: Client) -> None:
        with pytest.raises(RouteNotFound) as caught:
            client.resolve(KEY)
        assert caught.value.metadata["key"] == KEY
        assert isinstance(caught.value.__cause__, grpc.RpcError)

    def test_an_inactive_route_is_told_apart(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, URL, active=False)
        with pytest.raises(RouteInactive):
            client.resolve(KEY)

    def test_consistency_goes_to_the_server(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, URL)
        client.resolve(KEY)
        client.resolve(KEY, consistency=Consistency.FULLY_CONSISTENT)
        assert [call.request.consistency for call in server.calls] == [1, 2]


class TestBatchResolve:
    def test_gives_each_key_its_route_or_its_error_in_order(self, client: Client, server: FakeServer) -> None:
        server.add("a/b/c/v1", "https://one.internal")
        server.add("a/b/c/v2", "https://two.internal", active=False)
        results = client.batch_resolve(["a/b/c/v3", "a/b/c/v1", "a/b/c/v2"])
        assert [str(result.key) for result in results] == ["a/b/c/v3", "a/b/c/v1", "a/b/c/v2"]
        assert results[1].unwrap().url == "https://one.internal"
        assert isinstance(results[0].error, RouteNotFound)
        with pytest.raises(RouteInactive):
            results[2].unwrap()

    def test_splits_more_than_a_thousand_keys_and_keeps_their_order(self, client: Client, server: FakeServer) -> None:
        keys = [f"a/b/c/v{number}" for number in range(2001)]
        results = client.batch_resolve(keys)
        assert [str(result.key) for result in results] == keys
        assert [len(call.request.keys) for call in server.calls] == [1000, 1000, 1]

    def test_asks_again_for_what_did_not_fit_into_a_response(self, client: Client, server: FakeServer) -> None:
        server.largest_batch = 2
        for number in range(5):
            server.add(f"a/b/c/v{number}", f"https://v{number}.internal")
        results = client.batch_resolve([f"a/b/c/v{number}" for number in range(5)])
        assert [result.unwrap().url for result in results] == [f"https://v{number}.internal" for number in range(5)]
        assert [len(call.request.keys) for call in server.calls] == [5, 3, 1]

    def test_one_timeout_bounds_all_calls_together(self, client: Client, server: FakeServer) -> None:
        server.fail("BatchResolve", pushback(300))
        client.batch_resolve((f"a/b/c/v{number}" for number in range(1001)), timeout=3)
        assert server.calls[-1].seconds_left < 2.8

    def test_no_keys_is_no_call(self, client: Client, server: FakeServer) -> None:
        assert client.batch_resolve([]) == ()
        assert server.calls == []


class TestMutations:
    def test_create_returns_the_new_route(self, client: Client, server: FakeServer) -> None:
        route = client.create(KEY, URL, labels={"tier": "gold"}, reason="launch")
        assert (route.url, route.active, route.labels, route.revision) == (URL, True, {"tier": "gold"}, 1)
        assert route.create_time == datetime.fromtimestamp(T0 + 1, UTC)
        assert server.calls[0].request.reason == "launch"

    def test_create_can_start_inactive(self, client: Client) -> None:
        assert client.create(KEY, URL, active=False).active is False

    def test_create_of_a_taken_key_raises(self, client: Client) -> None:
        client.create(KEY, URL)
        with pytest.raises(RouteExists):
            client.create(KEY, URL)

    def test_update_changes_only_what_is_given(self, client: Client) -> None:
        client.create(KEY, URL, labels={"tier": "gold"})
        assert client.update(KEY, url="https://new.internal").labels == {"tier": "gold"}
        assert client.update(KEY, labels={"tier": "silver"}).url == "https://new.internal"

    def test_update_with_no_labels_removes_them_all(self, client: Client) -> None:
        client.create(KEY, URL, labels={"tier": "gold"})
        assert client.update(KEY, labels={}).labels == {}

    def test_update_may_create(self, client: Client) -> None:
        assert client.update(KEY, url=URL, allow_missing=True).revision == 1

    def test_update_of_another_revision_raises(self, client: Client) -> None:
        client.create(KEY, URL)
        with pytest.raises(RevisionMismatch) as caught:
            client.update(KEY, url=URL, expected_revision=7)
        assert caught.value.metadata == {"expected_revision": "7", "revision": "1"}

    def test_exclusive_activation_returns_the_revision_of_the_whole(self, client: Client) -> None:
        client.create("a/b/c/v1", URL)
        client.create("a/b/c/v2", URL, active=False)
        activation = client.activate("a/b/c/v2", exclusive=True)
        assert isinstance(activation, Activation)
        assert activation.route.active
        assert (activation.route.revision, activation.revision) == (3, 4)
        assert client.get("a/b/c/v1").active is False

    def test_deactivate_keeps_the_route_known(self, client: Client) -> None:
        client.create(KEY, URL)
        assert client.deactivate(KEY).active is False
        assert client.get(KEY).active is False

    def test_delete_returns_the_revision_of_the_removal(self, client: Client) -> None:
        client.create(KEY, URL)
        assert client.delete(KEY) == 2
        with pytest.raises(RouteNotFound):
            client.get(KEY)

    def test_every_mutation_carries_a_fresh_request_id(self, client: Client, server: FakeServer) -> None:
        client.create(KEY, URL)
        client.update(KEY, url=URL)
        client.deactivate(KEY)
        client.activate(KEY)
        client.delete(KEY)
        ids = {call.request.request_id for call in server.calls}
        assert len(ids) == 5
        assert all(len(request_id) == 32 for request_id in ids)

    def test_a_given_request_id_is_kept(self, client: Client, server: FakeServer) -> None:
        client.create(KEY, URL, request_id="deploy-17")
        assert server.calls[0].request.request_id == "deploy-17"


class TestImport:
    @pytest.fixture(autouse=True)
    def _small(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(chunks, "MOST_ROUTES", 10)

    def test_cuts_routes_into_calls_and_adds_up_what_they_did(self, client: Client, server: FakeServer) -> None:
        server.add("a/b/c/v3", URL)
        done: list[ImportResult] = []
        routes = [ImportedRoute(f"a/b/c/v{number}", URL) for number in range(25)]
        total = client.import_routes(routes, reason="the move", done=done.append)
        assert (total.created, total.updated, total.unchanged, total.revision) == (24, 0, 1, 25)
        assert [result.total for result in done] == [10, 10, 5]
        assert {call.request.reason for call in server.called("Import")} == {"the move"}

    def test_what_is_unset_is_not_sent(self, client: Client, server: FakeServer) -> None:
        client.import_routes([ImportedRoute("a/b/c/v1", URL), ImportedRoute("a/b/c/v2", URL, {}, False, 0)])
        plain, full = server.calls[0].request.routes
        assert (plain.HasField("labels"), plain.HasField("active")) == (False, False)
        assert (full.HasField("labels"), full.HasField("active"), full.active) == (True, True, False)

    def test_a_route_at_another_revision_refuses_its_call_and_is_named_by_its_number(
        self, client: Client, server: FakeServer
    ) -> None:
        seen = [server.add(f"a/b/c/v{number}", URL) for number in range(15)]
        server.add("a/b/c/v12", f"{URL}/theirs")
        routes = [ImportedRoute(f"a/b/c/v{n}", f"{URL}/ours", None, None, each.revision) for n, each in enumerate(seen)]
        with pytest.raises(RevisionMismatch) as raised:
            client.import_routes(routes)
        assert [violation.field for violation in raised.value.violations] == ["routes[12].expected_revision"]
        ours = [each.key.version for each in server.routes.values() if each.url == f"{URL}/ours"]
        assert ours == [f"v{number}" for number in range(10)]

    @pytest.mark.parametrize("route", [ImportedRoute(KEY, "\ud800"), ImportedRoute(KEY, URL, expected_revision=2**63)])
    def test_what_cannot_be_sent_is_refused_before(
        self, client: Client, server: FakeServer, route: ImportedRoute
    ) -> None:
        with pytest.raises(InvalidArgument):
            client.import_routes([route])
        assert server.calls == []


class TestLists:
    def test_list_pages_by_itself(self, client: Client, server: FakeServer) -> None:
        for number in range(5):
            server.add(f"a/b/c/v{number}", URL)
        assert [route.key.version for route in client.list(page_size=2)] == ["v0", "v1", "v2", "v3", "v4"]
        assert [call.request.page_token for call in server.calls] == ["", "2", "4"]

    def test_list_fetches_only_what_is_consumed(self, client: Client, server: FakeServer) -> None:
        for number in range(5):
            server.add(f"a/b/c/v{number}", URL)
        next(client.list(page_size=2))
        assert len(server.calls) == 1

    def test_list_filters(self, client: Client, server: FakeServer) -> None:
        server.add("a/b/c/v1", URL)
        server.add("a/b/c/v2", URL, active=False)
        server.add("z/b/c/v1", URL)
        assert [str(route.key) for route in client.list(tenant="a", active=True)] == ["a/b/c/v1"]
        assert [str(route.key) for route in client.list(active=False)] == ["a/b/c/v2"]

    def test_changes_tell_who_did_what_and_why(self, client: Client) -> None:
        client.create(KEY, URL, reason="launch", request_id="r-1")
        client.delete(KEY)
        created, deleted = client.changes()
        assert isinstance(created, Change)
        assert (created.revision, created.kind, created.actor, created.reason) == (
            1,
            ChangeKind.CREATED,
            "ada",
            "launch",
        )
        assert (created.before, created.request_id, created.epoch) == (None, "r-1", "epoch-1")
        assert (deleted.kind, deleted.after) == (ChangeKind.DELETED, None)
        assert deleted.before == created.after

    def test_changes_page_by_themselves_in_either_order(self, client: Client, server: FakeServer) -> None:
        for number in range(5):
            server.add(f"a/b/c/v{number}", URL)
        assert [change.revision for change in client.changes(newest_first=True, page_size=2)] == [5, 4, 3, 2, 1]
        assert [change.revision for change in client.changes(after_revision=1, before_revision=5)] == [2, 3, 4]


class TestReadYourWrites:
    def test_a_resolve_waits_for_the_own_writes(self, client: Client, server: FakeServer) -> None:
        server.add("x/y/z/v1", URL)
        client.create(KEY, URL)
        client.resolve(KEY)
        client.batch_resolve([KEY])
        assert client.last_revision == 2
        assert [call.request.min_revision for call in server.calls[1:]] == [2, 2]

    def test_the_highest_revision_counts(self, client: Client) -> None:
        client.create("a/b/c/v1", URL)
        client.create("a/b/c/v2", URL)
        client.activate("a/b/c/v1")  # a no-op: the route stays at revision 1
        assert client.last_revision == 2

    def test_an_explicit_min_revision_wins(self, client: Client, server: FakeServer) -> None:
        client.create(KEY, URL)
        client.resolve(KEY, min_revision=0)
        assert server.called("Resolve")[0].request.min_revision == 0

    def test_the_writes_of_others_are_not_waited_for(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, URL)
        list(client.list())
        client.resolve(KEY)
        assert server.called("Resolve")[0].request.min_revision == 0

    def test_can_be_forgotten(self, client: Client) -> None:
        client.create(KEY, URL)
        client.resolve(KEY)
        assert (client.last_revision, client.last_epoch) == (1, "epoch-1")
        client.forget_writes()
        assert (client.last_revision, client.last_epoch) == (0, "")

    def test_holds_across_threads(self, client: Client) -> None:
        threads = [threading.Thread(target=client.create, args=(f"a/b/c/v{number}", URL)) for number in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert client.last_revision == 8


class TestRetries:
    def test_a_read_is_retried_while_unavailable(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, URL)
        server.fail("Resolve", UNAVAILABLE, UNAVAILABLE)
        assert client.resolve(KEY).url == URL
        assert len(server.called("Resolve")) == 3

    def test_a_mutation_is_retried_under_the_same_request_id(self, client: Client, server: FakeServer) -> None:
        server.fail("Create", UNAVAILABLE, UNAVAILABLE)
        assert client.create(KEY, URL).revision == 1
        assert len(server.called("Create")) == 3
        assert len({call.request.request_id for call in server.calls}) == 1

    def test_retries_end(self, client: Client, server: FakeServer) -> None:
        server.fail("Get", *[UNAVAILABLE] * 10)
        with pytest.raises(Unavailable):
            client.get(KEY)
        assert len(server.called("Get")) == 4

    def test_retries_can_be_switched_off(self, server: FakeServer) -> None:
        server.fail("Get", UNAVAILABLE)
        with Client(server.target, max_attempts=1) as client, pytest.raises(Unavailable):
            client.get(KEY)
        assert len(server.calls) == 1

    def test_nothing_else_is_retried(self, client: Client, server: FakeServer) -> None:
        server.fail("Get", Failure(grpc.StatusCode.ABORTED))
        with pytest.raises(Exception, match="made to fail"):
            client.get(KEY)
        assert len(server.calls) == 1

    def test_the_server_can_forbid_the_retry(self, client: Client, server: FakeServer) -> None:
        server.fail("Get", pushback(-1))
        with pytest.raises(Unavailable):
            client.get(KEY)
        assert len(server.calls) == 1

    def test_the_server_can_set_the_pause(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, URL)
        server.fail("Get", pushback(400))  # the client's own first pause is at most 120 ms
        start = time.monotonic()
        assert client.get(KEY).url == URL
        assert time.monotonic() - start >= 0.4


class TestDeadlines:
    def test_every_call_has_one_by_default(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, URL)
        client.get(KEY)
        assert server.calls[0].seconds_left == pytest.approx(5, abs=1)

    def test_a_client_and_a_call_may_have_their_own(self, server: FakeServer) -> None:
        server.add(KEY, URL)
        with Client(server.target, timeout=60) as client:
            client.get(KEY)
            client.get(KEY, timeout=30)
        assert server.calls[0].seconds_left == pytest.approx(60, abs=2)
        assert server.calls[1].seconds_left == pytest.approx(30, abs=2)

    def test_a_call_out_of_time_raises(self, client: Client, server: FakeServer) -> None:
        server.fail("Get", pushback(60_000))
        with pytest.raises(DeadlineExceeded):
            client.get(KEY, timeout=0.2)

    @pytest.mark.parametrize("timeout", [0, -1, float("inf"), float("nan")])
    def test_must_be_positive_and_finite(self, client: Client, timeout: float) -> None:
        with pytest.raises(ValueError, match="timeout"):
            client.get(KEY, timeout=timeout)


class TestConnection:
    def test_a_server_that_is_not_there_is_unavailable(self) -> None:
        with Client("127.0.0.1:1", max_attempts=1) as client, pytest.raises(Unavailable) as caught:
            client.get(KEY)
        assert caught.value.reason == ""

    def test_with_credentials_plaintext_is_refused(self, server: FakeServer) -> None:
        credentials = grpc.ssl_channel_credentials()
        with Client(server.target, credentials=credentials, max_attempts=1) as client, pytest.raises(Unavailable):
            client.get(KEY)
        assert server.calls == []

    def test_a_token_is_sent_and_may_rotate(self, server: FakeServer) -> None:
        server.add(KEY, URL)
        tokens = iter(["one", "two"])
        with Client(server.target, token=lambda: next(tokens)) as client:
            client.get(KEY)
            client.get(KEY)
        assert [call.metadata["authorization"] for call in server.calls] == ["Bearer one", "Bearer two"]

    def test_says_who_it_is(self, client: Client, server: FakeServer) -> None:
        server.add(KEY, URL)
        client.get(KEY)
        assert str(server.calls[0].metadata["user-agent"]).startswith("pointsman-python/")


class TestWatchers:
    def test_propagation_says_who_has_a_revision_and_who_has_not(self, client: Client, server: FakeServer) -> None:
        response = propagation_pb2.GetPropagationResponse(watcher_count=3, applied_count=2, all_servers=True)
        behind = response.behind.add(watcher_id="w" * 16, name="cart@h1", address="ipv4:10.0.0.1:1", subject="cart")
        behind.applied_revision, behind.watch_time.seconds = 6, T0
        server.propagation = [response]

        found = client.get_propagation(7, tenant="a", service="b", env="c")

        since = datetime.fromtimestamp(T0, UTC)
        watcher = WatcherProgress("w" * 16, "cart@h1", "ipv4:10.0.0.1:1", "cart", 6, since)
        assert found == Propagation(3, 2, (watcher,), all_servers=True)
        assert not found.complete
        sent = server.calls[0].request
        assert (sent.revision, sent.tenant, sent.service, sent.env) == (7, "a", "b", "c")

    def test_nobody_who_watches_is_nobody_behind(self, client: Client) -> None:
        assert client.get_propagation(1).complete

    def test_usage_says_who_reads_a_key(self, client: Client, server: FakeServer) -> None:
        reader = server.usage.readers.add(subject="cart", read_count=12)
        reader.last_read_time.seconds = T0
        server.usage.window.seconds = 3600

        found = client.get_usage(KEY)

        read = Reader("cart", 12, datetime.fromtimestamp(T0, UTC))
        assert found == Usage((read,), timedelta(hours=1), all_servers=False)
        assert server.calls[0].request.key.version == "v2"

    @pytest.mark.parametrize("method", ["GetPropagation", "GetUsage"])
    def test_both_are_retried_while_the_server_is_away(self, client: Client, server: FakeServer, method: str) -> None:
        server.fail(method, UNAVAILABLE)
        _ = client.get_propagation(1) if method == "GetPropagation" else client.get_usage(KEY)
        assert len(server.called(method)) == 2
