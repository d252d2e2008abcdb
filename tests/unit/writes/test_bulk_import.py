"""The write path of many routes: what it refuses, and in which order it is carried out."""

import asyncio
from collections.abc import Sequence

import pytest

from pointsman_server.domain.errors import InvalidField, RequestIdReused, RoutesExist, StoreUnavailable
from pointsman_server.domain.routes import RouteKey, Wanted
from pointsman_server.ports.bulk_store import Existing
from pointsman_server.ports.store import Clock, Intent
from pointsman_server.writes.bulk_import import BulkImporter, Import, check, families_of, highest_of
from tests.support.bulk_fakes import MemoryBulkStore
from tests.support.fakes import EPOCH, MemoryCache, MemoryStore

V1, V2 = (RouteKey("team-a", "payments", "prod", version) for version in ("v1", "v2"))
FAMILY = V1.family_key
URL = "https://payments.internal"
INTENT = Intent("alice", request_id="chunk", fingerprint=b"one")


class Fixture:
    """An importer on fakes, and what it told of."""

    def __init__(self) -> None:
        self.store = MemoryStore()
        self.cache = MemoryCache()
        self.superseded: list[tuple[RouteKey, int]] = []
        self.imported: list[tuple[str, int, int]] = []
        self.importer = BulkImporter(MemoryBulkStore(self.store), self.cache, self.supersede, self.on_imported)

    def on_imported(self, epoch: str, first: int, last: int) -> None:
        assert self.superseded
        self.imported.append((epoch, first, last))

    def supersede(self, keys: Sequence[RouteKey], revisions: Sequence[int]) -> None:
        assert not any(name == "drop_older" for name, _ in self.cache.journal)
        self.superseded += zip(keys, revisions, strict=True)

    @property
    def told(self) -> list[str]:
        return [name for name, _ in self.cache.journal]


async def test_marks_before_the_locks_and_drops_after_the_commit() -> None:
    fixture = Fixture()
    fixture.store.before_commit.close()
    running = asyncio.create_task(fixture.importer.import_(Import([Wanted(V1, URL)]), INTENT))
    await fixture.store.before_commit.arrivals()
    assert (fixture.told, fixture.superseded) == (["mark_held"], [])
    fixture.store.before_commit.open()
    assert (await running).created == 1
    assert fixture.store.journal == ["stage", "lock", "commit"]
    assert (fixture.told, fixture.superseded) == (["mark_held", "drop_older"], [(V1, 1), (FAMILY, 1)])


async def test_a_replay_confirms_all_its_keys_as_of_its_answer_and_stages_nothing() -> None:
    fixture = Fixture()
    command = Import([Wanted(V1, URL), Wanted(V2, URL)])
    first = await fixture.importer.import_(command, INTENT)
    fixture.cache.journal.clear()
    fixture.superseded.clear()
    assert await fixture.importer.import_(command, INTENT) == first
    assert fixture.superseded == [(V1, 2), (V2, 2), (FAMILY, 2)]
    assert fixture.told == ["drop_older"]
    assert fixture.store.journal.count("stage") == 1


async def test_the_revisions_of_an_import_are_handed_on_once_and_none_of_a_replay() -> None:
    fixture = Fixture()
    command = Import([Wanted(V1, URL), Wanted(V2, URL)])
    for intent in (INTENT, INTENT, Intent("alice")):  # the last one finds every route as requested
        fixture.cache.journal.clear()
        await fixture.importer.import_(command, intent)
    assert fixture.imported == [(EPOCH, 1, 2)]


async def test_an_import_that_is_not_committed_drops_nothing() -> None:
    fixture = Fixture()
    fixture.store.commit_failure = StoreUnavailable()
    with pytest.raises(StoreUnavailable):
        await fixture.importer.import_(Import([Wanted(V1, URL)]), INTENT)
    assert (fixture.told, fixture.superseded) == (["mark_held"], [])


async def test_another_request_under_the_same_id_is_refused() -> None:
    fixture = Fixture()
    await fixture.importer.import_(Import([Wanted(V1, URL)]), INTENT)
    with pytest.raises(RequestIdReused):
        await fixture.importer.import_(Import([Wanted(V2, URL)]), Intent("alice", "", "chunk", b"two"))


async def test_bad_urls_and_keys_given_twice_are_named_and_reach_no_store() -> None:
    fixture = Fixture()
    wanted = [Wanted(V1, URL), Wanted(V2, "nonsense"), Wanted(V1, URL)]
    with pytest.raises(InvalidField) as refused:
        await fixture.importer.import_(Import(wanted), INTENT)
    assert [violation.field for violation in refused.value.violations] == ["routes[1].url", "routes[2].key"]
    assert fixture.store.journal == []


async def test_of_many_bad_routes_the_first_are_named() -> None:
    fixture = Fixture()
    with pytest.raises(InvalidField) as refused:
        await fixture.importer.import_(Import([Wanted(V1, "nonsense")] * 5000), INTENT)
    assert len(refused.value.violations) == 16
    assert refused.value.message.endswith("; and more")


class OwnerCache(MemoryCache):
    """Records who marked, who took the marks back, and as of when."""

    def __init__(self) -> None:
        super().__init__()
        self.marked: list[str] = []
        self.dropped: list[tuple[Clock, str]] = []

    async def mark_held(self, keys: Sequence[RouteKey], owner: str) -> None:
        self.marked.append(owner)
        await super().mark_held(keys, owner)

    async def drop_older(self, keys: Sequence[RouteKey], revisions: Sequence[int], clock: Clock, owner: str) -> None:
        self.dropped.append((clock, owner))
        await super().drop_older(keys, revisions, clock, owner)


async def test_each_import_takes_back_its_own_marks_as_of_its_commit() -> None:
    cache = OwnerCache()
    importer = BulkImporter(MemoryBulkStore(MemoryStore()), cache, lambda _keys, _revisions: None)
    for key in (V1, V2):
        await importer.import_(Import([Wanted(key, URL)]), Intent("alice"))
    assert cache.dropped == [(Clock(EPOCH, number), owner) for number, owner in enumerate(cache.marked, 1)]
    assert len(set(cache.marked)) == 2
    assert all(len(owner) == 16 for owner in cache.marked)


async def test_a_request_id_belongs_to_its_tenant() -> None:
    fixture = Fixture()
    await fixture.importer.import_(Import([Wanted(V1, URL)]), INTENT)
    other = RouteKey("team-b", "payments", "prod", "v1")
    fixture.cache.journal.clear()
    imported = await fixture.importer.import_(Import([Wanted(other, URL)]), Intent("bob", "", "chunk", b"two"))
    assert (imported.created, imported.revision) == (1, 2)


async def test_what_exists_is_refused_if_the_command_says_so() -> None:
    fixture = Fixture()
    await fixture.importer.import_(Import([Wanted(V1, URL)]), INTENT)
    with pytest.raises(RoutesExist):
        await fixture.importer.import_(Import([Wanted(V1, URL)], Existing.REFUSE), Intent("alice"))


async def test_each_violation_says_what_is_wrong() -> None:
    with pytest.raises(InvalidField) as refused:
        check([Wanted(V1, "nonsense"), Wanted(V2, URL), Wanted(V2, URL)])
    url, key = refused.value.violations
    assert url.description.startswith("must be")
    assert key.description == "is that of routes[1] again"


@pytest.mark.parametrize(("count", "more"), [(16, False), (17, True)])
async def test_whether_there_are_more_violations_than_are_named(count: int, more: bool) -> None:
    keys = [RouteKey("team-a", "payments", "prod", f"v{number}") for number in range(count)]
    with pytest.raises(InvalidField) as refused:
        check([Wanted(key, "nonsense") for key in keys])
    assert len(refused.value.violations) == 16
    assert refused.value.message.endswith("; and more") is more


async def test_each_family_is_announced_once_and_dropped_as_of_its_last_change() -> None:
    fixture = Fixture()
    other = RouteKey("team-a", "orders", "prod", "v1")
    await fixture.importer.import_(Import([Wanted(V1, URL), Wanted(other, URL), Wanted(V2, URL)]), INTENT)
    keys = [V1, other, V2, FAMILY, other.family_key]
    assert fixture.cache.journal == [("mark_held", keys), ("drop_older", keys)]
    assert fixture.superseded == list(zip(keys, [1, 2, 3, 3, 2], strict=True))


def test_families_are_found_in_the_order_of_their_first_members() -> None:
    other = RouteKey("team-a", "orders", "prod", "v1")
    families, places = families_of([V1, other, V2])
    assert (families, places) == ([FAMILY, other.family_key], [0, 1, 0])
    assert highest_of(places, [7, 5, 6], 2) == [7, 5]
