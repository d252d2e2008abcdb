"""session: the deadline, the token and the memory of one client."""

from collections.abc import Sequence

import pytest

from pointsman.change_sets import Activate, Delete
from pointsman.connection.bearer import Bearer
from pointsman.errors import RouteNotFound
from pointsman.keys import RouteKey
from pointsman.memory import Floor, Sighting
from pointsman.results import BatchResult
from pointsman.rpc import operations, requests, traffic_operations, traffic_requests
from pointsman.rpc.session import Session
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteChange
from pointsman.v1.traffic_methods_pb2 import DeleteTrafficResponse

KEY = RouteKey.parse("a/b/c/d")


def session(timeout: float = 5.0) -> Session:
    return Session(timeout, Bearer(), max_attempts=4)


def test_a_countdown_begins_at_the_timeout_of_the_call_or_else_of_the_client() -> None:
    assert 4 < session().countdown(None)() <= 5
    assert 1 < session().countdown(2.0)() <= 2


def test_a_countdown_never_reaches_zero() -> None:
    assert session().countdown(1e-9)() > 0


def test_a_client_with_a_bad_timeout_is_not_made() -> None:
    with pytest.raises(ValueError, match="timeout"):
        session(0)


def test_what_the_caller_asks_for_is_sent_as_it_is() -> None:
    ours = session()
    ours.memory.wrote(7, began="")
    assert ours.floor(KEY, None, "") == Floor(7, "")
    assert ours.floor(KEY, 3, "e-1") == Floor(3, "e-1")
    assert ours.floor_of_all(0, "") == Floor(0, "")


def test_an_epoch_alone_says_nothing() -> None:
    with pytest.raises(ValueError, match="give both"):
        session().floor(KEY, None, "e-1")


class NearCache:
    """Shows its key at a revision, and keeps what it is told."""

    def __init__(self, floor: Floor) -> None:
        self.shown = floor
        self.told: list[object] = []

    def floor(self, key: RouteKey) -> Floor:
        return self.shown

    def saw(self, key: str, revision: int, epoch: str) -> None:
        self.told.append((key, revision, epoch))

    def wrote(self, keys: Sequence[RouteKey], revision: int, *, siblings: bool) -> None:
        self.told.append(([*map(str, keys)], revision, siblings))

    def wrote_any(self, revision: int) -> None:
        self.told.append(revision)

    def shut_down(self) -> None:
        """There is nothing to end."""


@pytest.mark.parametrize(
    ("seen", "shown", "asked"),
    [
        (Floor(5, "e"), Floor(7, "e"), Floor(7, "e")),
        (Floor(9, "e"), Floor(7, "e"), Floor(9, "e")),
        (Floor(5, ""), Floor(7, "e"), Floor(7, "e")),
        (Floor(5, "f"), Floor(7, "e"), Floor(5, "f")),
    ],
)
def test_a_resolve_does_not_go_back_of_what_a_near_cache_has_shown(seen: Floor, shown: Floor, asked: Floor) -> None:
    ours = session()
    ours.memory.saw([Sighting(str(KEY), seen.revision, seen.revision, seen.epoch)], Floor(), "")
    ours.near_caches = (NearCache(shown),)
    assert ours.floor(KEY, None, "") == asked


def test_nor_does_a_batch() -> None:
    ours = session()
    ours.near_caches = (NearCache(Floor(7, "e")),)

    def behind(as_of: int) -> tuple[list[RouteKey], Floor]:
        return ours.again([BatchResult(KEY, error=RouteNotFound("no", metadata=known(as_of)))], None)

    assert behind(6) == ([KEY], Floor(7, "e"))
    assert behind(7) == ([], Floor())


def known(as_of: int) -> dict[str, str]:
    return {"key": str(KEY), "revision": str(as_of), "epoch": "e"}


def test_near_caches_are_told_what_was_written_and_seen() -> None:
    ours = session()
    cache = NearCache(Floor())
    ours.near_caches = (cache,)
    key = requests.key_message(KEY)
    ours.accepted(operations.DELETE, pb.DeleteRequest(key=key), pb.DeleteResponse(revision=7), "")
    exclusive = pb.ActivateRequest(key=key, exclusive=True)
    ours.accepted(operations.ACTIVATE, exclusive, pb.ActivateResponse(revision=8), "")
    many = pb.ImportRequest(routes=[pb.ImportedRoute(key=key), pb.ImportedRoute(key=key)])
    ours.accepted(operations.IMPORT, many, pb.ImportResponse(revision=9), "")
    ours.refused(operations.RESOLVE, pb.ResolveRequest(key=key), RouteNotFound("no", metadata=known(9)), "")
    name = str(KEY)
    assert cache.told == [([name], 7, False), ([name], 8, True), ([name, name], 9, False), (name, 9, "e")]


def test_near_caches_are_told_of_change_sets_and_traffic() -> None:
    ours = session()
    cache = NearCache(Floor())
    ours.near_caches = (cache,)
    traffic = traffic_requests.delete_traffic("a/b/c", 0, "", "")
    ours.accepted(traffic_operations.DELETE_TRAFFIC, traffic, DeleteTrafficResponse(revision=7), "")
    commit = traffic_requests.commit([Activate(KEY, exclusive=True), Delete(KEY)], False, "", "")
    ours.accepted(traffic_operations.commit(dry_run=True), commit, pb.CommitResponse(revision=7), "")
    ours.accepted(traffic_operations.commit(dry_run=False), commit, pb.CommitResponse(revision=9), "")
    revert = traffic_requests.revert(8, False, False, "", "", "")
    change = RouteChange(key=requests.key_message(KEY))
    response = pb.RevertResponse(revision=11, changes=[change], omitted_change_count=1)
    ours.accepted(traffic_operations.revert(dry_run=False), revert, response, "")
    name = str(KEY)
    assert cache.told == [
        (["a/b/c"], 7, False),
        ([name], 9, True),
        ([name], 9, False),
        11,
        ([name], 11, False),
    ]
    assert ours.memory.written == 11
