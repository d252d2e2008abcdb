"""events.cache_invalidation: which changes of a batch reach the shared cache."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest

from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.domain.routes import ChangeKind, RouteKey, Snapshot
from pointsman_server.events.cache_invalidation import CacheHandler
from pointsman_server.ports.cache import CacheUnavailable
from tests.support.changes import make_change, make_traffic_change


class Scene:
    """A handler, its cache, and the epoch that is known; ``renew`` reads ``stored_epoch`` or raises ``failure``."""

    def __init__(self, epoch: str = "e1", stored_epoch: str = "") -> None:
        self.epoch = epoch
        self.stored_epoch = stored_epoch or epoch
        self.failure: Exception | None = None
        self.renewals = 0
        self.consumed: list[Sequence[Snapshot]] = []
        self.invalidated: list[tuple[dict[str, int], str]] = []
        cache: Any = self
        self.handle = CacheHandler(cache, lambda: self.epoch, renew=self._renew)

    async def consume(self, snapshots: Sequence[Snapshot]) -> None:
        self.consumed.append(snapshots)

    async def invalidate(self, keys: Sequence[RouteKey], revisions: Sequence[int], epoch: str) -> None:
        self.invalidated.append((dict(zip(map(str, keys), revisions, strict=True)), epoch))

    async def _renew(self) -> None:
        self.renewals += 1
        if self.failure:
            raise self.failure
        self.epoch = self.stored_epoch


async def test_the_cache_gets_only_the_newest_change_of_each_key() -> None:
    scene = Scene()
    gone = make_change(4, "pay", ChangeKind.DELETED)
    # The second 1 is a repetition, and older than what came before it.
    await scene.handle(
        [make_change(1, "pay"), make_change(2, "mail"), make_change(3, "pay"), gone, make_change(1, "pay")]
    )
    assert scene.consumed == [[gone.snapshot, make_change(2, "mail").snapshot]]
    assert gone.snapshot.route is None


async def test_changes_of_the_known_epoch_read_no_epoch() -> None:
    scene = Scene()
    await scene.handle([make_change(1), make_change(2)])
    assert scene.renewals == 0


async def test_a_change_of_an_unknown_epoch_reads_the_epoch_and_only_that_one_is_cached() -> None:
    scene = Scene("e1", stored_epoch="e2")
    await scene.handle([make_change(900, epoch="e1")])
    assert (scene.epoch, scene.renewals) == ("e1", 0)
    await scene.handle([make_change(901, epoch="e1"), make_change(5, epoch="e2")])
    assert scene.renewals == 1
    assert scene.consumed[1:] == [[make_change(5, epoch="e2").snapshot]]


async def test_changes_of_an_old_epoch_are_dropped_without_a_call_to_the_cache() -> None:
    scene = Scene("e2")
    await scene.handle([make_change(900, epoch="e1")])
    assert scene.consumed == []
    await scene.handle([make_change(901, epoch="e1"), make_change(5, epoch="e2")])
    assert scene.consumed == [[make_change(5, epoch="e2").snapshot]]


async def test_without_a_way_to_read_the_epoch_other_epochs_are_dropped() -> None:
    scene = Scene()
    cache: Any = scene
    await CacheHandler(cache, lambda: "e1")([make_change(1), make_change(2, epoch="e2")])
    assert scene.consumed == [[make_change(1).snapshot]]


async def test_nothing_is_cached_while_the_epoch_cannot_be_read() -> None:
    scene = Scene()
    scene.failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await scene.handle([make_change(1), make_change(1, "mail", epoch="e2")])
    assert scene.consumed == []


async def test_an_error_of_the_cache_is_raised_so_that_the_batch_is_read_again() -> None:
    class Broken:
        async def consume(self, _: Sequence[Snapshot]) -> None:
            raise CacheUnavailable("down")

    cache: Any = Broken()
    with pytest.raises(CacheUnavailable):
        await CacheHandler(cache, lambda: "e1")([make_change(1)])


async def test_families_are_invalidated_as_of_the_newest_change_of_a_version_or_of_traffic() -> None:
    scene = Scene()
    other = replace(make_change(5), key=RouteKey("acme", "pay", "prod", "v2"))
    await scene.handle([make_change(6), other, make_traffic_change(7, "mail"), make_change(3, "mail")])
    assert scene.invalidated == [({"acme/pay/prod": 6, "acme/mail/prod": 7}, "e1")]
    assert scene.consumed == [[make_change(6).snapshot, other.snapshot, make_change(3, "mail").snapshot]]


async def test_traffic_alone_changes_no_route() -> None:
    scene = Scene()
    await scene.handle([make_traffic_change(7, kind=ChangeKind.TRAFFIC_DELETED)])
    assert (scene.consumed, scene.invalidated) == ([], [({"acme/pay/prod": 7}, "e1")])


async def test_families_of_an_old_epoch_are_left_alone() -> None:
    scene = Scene("e2")
    await scene.handle([make_change(900, epoch="e1")])
    assert scene.invalidated == []


async def test_a_family_that_cannot_be_invalidated_now_is_read_again() -> None:
    class Broken(Scene):
        async def invalidate(self, keys: Sequence[RouteKey], revisions: Sequence[int], epoch: str) -> None:
            raise CacheUnavailable("down")

    with pytest.raises(CacheUnavailable):
        await Broken().handle([make_traffic_change(1)])
