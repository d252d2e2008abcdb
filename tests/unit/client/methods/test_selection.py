"""selection: select, batch_select and explain."""

from contextlib import suppress
from random import Random

import grpc
import pytest

from pointsman import (
    AmbiguousVersion,
    AsyncClient,
    Choice,
    Client,
    FamilyKey,
    NoActiveVersion,
    PointsmanError,
    Rule,
    SelectionResult,
    Source,
    TrafficNotFound,
)
from tests.support.fake_route_service import Failure, FakeServer

FAMILY = "team-a/payments/prod"


@pytest.fixture(autouse=True)
def _versions(server: FakeServer) -> None:
    for version in ("v1", "v2", "v3"):
        server.add(f"{FAMILY}/{version}", f"https://{version}.internal", active=version != "v3")


def test_returns_the_route_that_the_traffic_assigns_and_why(client: Client, server: FakeServer) -> None:
    server.divide(FAMILY, {"v1": 9000, "v2": 1000})
    selection = client.select(FamilyKey.parse(FAMILY), "user-1")
    assert selection.url == f"https://{selection.version}.internal"
    assert selection.choice == Choice(selection.version, Rule.SPLIT)
    assert (selection.traffic_revision, selection.as_of_revision, selection.epoch) == (4, 4, "epoch-1")
    assert selection.source is Source.LOCAL
    assert {client.select(FAMILY, "user-1").version for _ in range(5)} == {selection.version}


def test_names_the_versions_that_it_passed_over(client: Client, server: FakeServer) -> None:
    server.divide(FAMILY, {"v3": 10_000}, ("v2",))
    assert client.select(FAMILY).choice == Choice("v2", Rule.FALLBACK, ("v3",))


def test_without_traffic_the_only_active_version_is_taken(client: Client) -> None:
    with pytest.raises(AmbiguousVersion) as caught:
        client.select(FAMILY)
    assert caught.value.versions == ("v1", "v2")
    client.deactivate(f"{FAMILY}/v1")
    assert client.select(FAMILY).choice == Choice("v2", Rule.ONLY_ACTIVE)
    client.deactivate(f"{FAMILY}/v2")
    with pytest.raises(NoActiveVersion):
        client.select(FAMILY)


def test_answers_what_would_have_been_selected_then(client: Client, server: FakeServer) -> None:
    client.deactivate(f"{FAMILY}/v1")
    client.activate(f"{FAMILY}/v1")
    selection = client.select(FAMILY, as_of=4)
    assert (selection.version, selection.as_of_revision) == ("v2", 4)
    assert server.called("Select")[-1].request.min_revision == 0
    with pytest.raises(ValueError, match="exclude each other"):
        client.select(FAMILY, as_of=4, min_revision=1)


def test_sees_what_the_client_wrote(client: Client, server: FakeServer) -> None:
    server.divide(FAMILY, {"v1": 10_000})
    server.stale = server.view
    client.set_traffic(FAMILY, {"v2": 10_000})
    assert client.select(FAMILY).version == "v2"


def test_never_goes_back(client: Client, server: FakeServer) -> None:
    """Another server, which is behind, does not know yet why a version was passed over."""
    server.divide(FAMILY, {"v1": 10_000}, ("v2",))
    behind = server.view
    server.routes[tuple(f"{FAMILY}/v1".split("/"))].active = False
    server.add("z/z/z/z", "https://z.internal")  # the revision of that change
    assert client.select(FAMILY).version == "v2"
    server.stale = behind
    assert client.select(FAMILY).version == "v2"
    assert [each.unwrap().version for each in client.batch_select([(FAMILY, "")])] == ["v2"]


@pytest.mark.parametrize("seed", range(20))
def test_never_goes_back_whatever_changes_and_whoever_answers(client: Client, server: FakeServer, seed: int) -> None:
    """An answer may be of an older revision than the one before it only where both say the same."""
    random = Random(seed)
    views = [server.view]
    last: tuple[int, object] = (0, None)
    with Client(server.target) as writer:
        for _ in range(40):
            server.stale = None
            change = random.randrange(5)
            version = f"{FAMILY}/v{random.randint(1, 3)}"
            if change == 0:
                writer.set_traffic(FAMILY, random.choice([{"v1": 10_000}, {"v1": 5000, "v2": 5000}, {"v3": 10_000}]))
            elif change == 1:
                writer.deactivate(version)
            elif change == 2:
                writer.activate(version)
            elif change == 3:
                with suppress(TrafficNotFound):
                    writer.delete_traffic(FAMILY)
            views.append(server.view)
            server.stale = random.choice([None, *views[-4:]])
            answer, as_of = answered(client, random.random() < 0.5)
            assert as_of >= last[0] or answer == last[1]
            last = (as_of, answer) if as_of > last[0] else last


def answered(client: Client, in_a_batch: bool) -> tuple[object, int]:
    """Return what a caller gets, and as of which revision."""
    [result] = client.batch_select([(FAMILY, "user-1")]) if in_a_batch else [selected(client)]
    if result.selection:
        return result.selection.version, result.selection.as_of_revision
    assert result.error is not None
    return result.error.reason, int(result.error.metadata["revision"])


def selected(client: Client) -> SelectionResult:
    try:
        return SelectionResult(FamilyKey.parse(FAMILY), "user-1", selection=client.select(FAMILY, "user-1"))
    except (AmbiguousVersion, NoActiveVersion) as error:
        return SelectionResult(FamilyKey.parse(FAMILY), "user-1", error=error)


def test_an_ambiguity_that_was_seen_is_not_forgotten(client: Client, server: FakeServer) -> None:
    server.routes[tuple(f"{FAMILY}/v1".split("/"))].active = False
    server.stale = server.view
    with Client(server.target) as other:
        other.activate(f"{FAMILY}/v1")
    with pytest.raises(AmbiguousVersion):
        client.select(FAMILY, min_revision=4)
    with pytest.raises(AmbiguousVersion):
        client.select(FAMILY)


def test_is_no_floor_for_others_as_long_as_nothing_was_passed_over(client: Client, server: FakeServer) -> None:
    """A floor makes servers pass by caches that are good enough."""
    server.divide(FAMILY, {"v1": 10_000})
    server.add("z/z/z/z", "https://z.internal")
    client.select(FAMILY)
    client.select(FAMILY)
    assert server.calls[-1].request.min_revision == 4


class TestBatchSelect:
    def test_has_one_result_for_each_pair_in_its_order(self, client: Client, server: FakeServer) -> None:
        server.divide(FAMILY, {"v1": 5000, "v2": 5000})
        pairs: list[tuple[FamilyKey | str, str]] = [(FAMILY, f"user-{number}") for number in range(1001)]
        results = client.batch_select(pairs)
        assert [each.sticky_key for each in results] == [sticky_key for _, sticky_key in pairs]
        assert {each.unwrap().version for each in results} == {"v1", "v2"}
        assert [len(call.request.selections) for call in server.called("BatchSelect")] == [1000, 1]
        assert results[7].unwrap().version == client.select(FAMILY, "user-7").version

    def test_each_has_its_own_error(self, client: Client) -> None:
        ambiguous, absent = client.batch_select([(FAMILY, ""), ("a/b/c", "")])
        assert isinstance(ambiguous.error, AmbiguousVersion)
        assert (str(absent.key), absent.selection) == ("a/b/c", None)
        with pytest.raises(NoActiveVersion):
            absent.unwrap()

    def test_of_nothing_asks_nothing(self, client: Client, server: FakeServer) -> None:
        assert client.batch_select([]) == ()
        assert server.calls == []

    def test_a_result_without_any_answer_still_raises(self) -> None:
        with pytest.raises(PointsmanError, match="no answer"):
            SelectionResult(FamilyKey.parse(FAMILY), "").unwrap()


def test_explains_a_select_and_a_resolve(client: Client, server: FakeServer) -> None:
    server.divide(FAMILY, {"v1": 10_000})
    select = client.explain(FAMILY, sticky_key="user-1", subject="cart")
    assert select.route is not None
    assert select.choice == Choice("v1", Rule.SPLIT)
    assert [(layer.source, layer.held, layer.problem) for layer in select.layers] == [
        (Source.LOCAL, True, ""),
        (Source.REDIS, False, "it cannot be reached"),
        (Source.POSTGRES, True, ""),
    ]
    assert select.layers[2].age is None
    assert select.last_change is not None
    assert select.last_change.revision == 4
    assert (select.permission.subject, select.permission.allowed) == ("cart", True)
    resolve = client.explain(f"{FAMILY}/v3")
    assert (resolve.route, resolve.choice) == (None, None)
    assert resolve.error is not None
    assert resolve.error.reason == "ROUTE_INACTIVE"


def test_is_retried_as_every_read(client: Client, server: FakeServer) -> None:
    unavailable = Failure(grpc.StatusCode.UNAVAILABLE, "later", "STORE_UNAVAILABLE")
    server.divide(FAMILY, {"v1": 10_000})
    for method in ("Select", "BatchSelect", "Explain"):
        server.fail(method, unavailable)
    client.select(FAMILY)
    client.batch_select([(FAMILY, "")])
    client.explain(FAMILY)
    assert [len(server.called(method)) for method in ("Select", "BatchSelect", "Explain")] == [2, 2, 2]


async def test_does_the_same_in_asyncio(async_client: AsyncClient, server: FakeServer) -> None:
    server.divide(FAMILY, {"v1": 10_000})
    assert (await async_client.select(FAMILY, "user-1")).version == "v1"
    assert [each.unwrap().version for each in await async_client.batch_select([(FAMILY, "")])] == ["v1"]
    assert (await async_client.explain(FAMILY)).choice == Choice("v1", Rule.SPLIT)
