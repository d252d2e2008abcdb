"""The snapshot: what is built when, and who hears of what."""

import asyncio
from collections.abc import Collection
from typing import Any

import pytest

from pointsman_server.domain.routes import Change, ChangeKind
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import FairShare, Window
from pointsman_server.xds import snapshot as module
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.snapshot import WOKEN_IN_A_TURN, ResourceSnapshot
from pointsman_server.xds.table import Table
from pointsman_server.xds.targets import Target, Verdict
from pointsman_server.xds.views import View
from tests.support.changes import make_change

VIEW = View()
PAY, FAMILY = "v1~prod~pay~acme", "prod~pay~acme"
ADS = "v1~prod~ads~acme"


class Stream:
    """A subscriber that takes its news at once when it is woken."""

    def __init__(self, snapshot: ResourceSnapshot, *roots: str) -> None:
        self.snapshot = snapshot
        self.woken = 0
        self.heard: list[Collection[str]] = []
        for root in roots:
            snapshot.subscribe(root, self)

    def wake(self, window: Window) -> None:
        assert isinstance(window, Window)
        self.woken += 1
        self.heard.append(self.snapshot.news(self) or ())


class Sleeper(Stream):
    """One that takes its news when it is told to."""

    def wake(self, window: Window) -> None:
        self.woken += 1


def content(*changes: Change) -> Table:
    table = Table(Clock("e1", 0))
    table.apply(changes)
    return table


@pytest.fixture
def snapshot() -> ResourceSnapshot:
    return ResourceSnapshot(content(make_change(1), make_change(2, "ads")))


class TestResources:
    """What is built, and kept."""

    def test_a_resource_is_built_once_while_somebody_watches_it(
        self, snapshot: ResourceSnapshot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        built: list[str] = []
        build = module.build
        monkeypatch.setattr(module, "build", lambda *given: built.append(given[2]) or build(*given))
        for _ in range(2):
            snapshot.resource(VIEW, ResourceType.RDS, PAY)
        assert built == [PAY, PAY]
        Stream(snapshot, PAY)
        for _ in range(2):
            for kind in ResourceType:
                snapshot.resource(VIEW, kind, PAY)
        assert len(built) == 6

    def test_equal_tables_have_equal_resources(self, snapshot: ResourceSnapshot) -> None:
        other = ResourceSnapshot(content(make_change(2, "ads"), make_change(1)))
        Stream(other, PAY)
        for kind in ResourceType:
            assert snapshot.resource(VIEW, kind, PAY) == other.resource(VIEW, kind, PAY)

    def test_views_and_permissions_are_kept_apart(self, snapshot: ResourceSnapshot) -> None:
        Stream(snapshot, PAY)
        seen = {
            snapshot.resource(view, kind, PAY, forbidden=forbidden).version
            for view in (VIEW, View(ca_provider="mine"))
            for kind in (ResourceType.RDS,)
            for forbidden in (False, True)
        }
        assert len(seen) >= 2
        assert len(snapshot._watched[PAY].built) == 4

    def test_what_is_kept_of_a_root_is_bounded_whatever_clients_ask_for(self, snapshot: ResourceSnapshot) -> None:
        Stream(snapshot, PAY)
        for number in range(500):
            snapshot.resource(VIEW, ResourceType.CDS, f"{PAY}~~x{number}")
            snapshot.resource(View(ca_provider=str(number)), ResourceType.CDS, PAY)
            snapshot.built(PAY, number, lambda target: target)
        assert len(snapshot._watched[PAY].built) <= 200

        # What clients of some views need is there.
        Stream(snapshot, ADS)
        views = [View(ca_provider=str(number)) for number in range(16)]
        first, then = ([snapshot.resource(view, kind, ADS) for view in views for kind in ResourceType] for _ in "12")
        assert [id(each) for each in first] == [id(each) for each in then]

    def test_nothing_is_kept_of_what_nobody_watches(self, snapshot: ResourceSnapshot) -> None:
        stream, other = Stream(snapshot, PAY, ADS), Stream(snapshot, PAY)
        snapshot.resource(VIEW, ResourceType.RDS, PAY)
        stream.snapshot.unsubscribe(PAY, stream)
        snapshot.unsubscribe(PAY, stream)
        snapshot.unsubscribe(ADS, stream)
        assert list(snapshot._watched) == [PAY]
        snapshot.unsubscribe(PAY, other)
        snapshot.unsubscribe(PAY, other)
        assert not snapshot._watched

    def test_what_others_make_of_a_target_is_kept_while_somebody_watches_it(self, snapshot: ResourceSnapshot) -> None:
        def url(target: Target) -> str:
            made.append(target)
            return target.slots[0].url

        made: list[Target] = []
        assert [snapshot.built(PAY, "url", url) for _ in range(2)] == ["https://pay.internal/1"] * 2
        assert made == [snapshot.target(PAY)] * 2
        Stream(snapshot, PAY)
        assert [snapshot.built(PAY, "url", url) for _ in range(2)] == ["https://pay.internal/1"] * 2
        assert len(made) == 3

    def test_a_change_builds_only_what_it_changes(
        self, snapshot: ResourceSnapshot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        Stream(snapshot, PAY, ADS)
        for root in (PAY, ADS):
            snapshot.resource(VIEW, ResourceType.CDS, root)
        before = snapshot.resource(VIEW, ResourceType.CDS, ADS)
        snapshot.apply([make_change(3)])
        assert snapshot.resource(VIEW, ResourceType.CDS, ADS) is before
        assert snapshot.target(PAY).slots[0].url == "https://pay.internal/3"
        assert snapshot.clock == Clock("e1", 3)


class TestNews:
    """Who is woken, and what it hears."""

    async def test_those_who_watch_hear_of_a_change(self, snapshot: ResourceSnapshot) -> None:
        one, two, other = Stream(snapshot, PAY), Stream(snapshot, FAMILY), Stream(snapshot, ADS)
        snapshot.apply([make_change(3)])
        assert snapshot.has_news(one)
        await snapshot.step()
        assert (one.woken, two.woken, other.woken) == (1, 1, 0)
        assert PAY in one.heard[0]
        assert FAMILY in two.heard[0]
        assert not snapshot.has_news(one)
        assert not snapshot._log

    async def test_a_change_that_leads_nowhere_else_is_no_news(self, snapshot: ResourceSnapshot) -> None:
        stream = Stream(snapshot, PAY)
        snapshot.apply([make_change(1)])
        assert not snapshot.has_news(stream)
        assert not snapshot._log

    async def test_a_set_is_news_as_a_whole(self, snapshot: ResourceSnapshot) -> None:
        stream = Stream(snapshot, PAY, ADS)
        snapshot.apply([make_change(3), make_change(4, "ads")])
        assert set(snapshot.news(stream) or ()) >= {PAY, ADS}
        assert snapshot.news(stream) == ()

    async def test_those_who_have_the_same_news_share_it(self, snapshot: ResourceSnapshot) -> None:
        one, two = Sleeper(snapshot, PAY), Sleeper(snapshot, PAY)
        snapshot.apply([make_change(3)])
        assert snapshot.news(one) is snapshot.news(two)

    async def test_what_waits_is_merged(self, snapshot: ResourceSnapshot) -> None:
        sleeper, stream = Sleeper(snapshot, PAY, ADS), Stream(snapshot, ADS)
        snapshot.apply([make_change(3)])
        await snapshot.step()
        snapshot.apply([make_change(4, "ads")])
        await snapshot.step()
        assert sleeper.woken == 1
        assert PAY not in stream.heard[0]
        assert set(snapshot.news(sleeper) or ()) >= {PAY, ADS}
        assert not snapshot._log

    async def test_one_that_does_not_listen_is_told_of_everything(
        self, snapshot: ResourceSnapshot, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(module, "MOST_LOGGED", 3)
        sleeper = Sleeper(snapshot, PAY, ADS)
        for revision in range(3, 20):
            snapshot.apply([make_change(revision)])
        assert len(snapshot._log) == 3
        assert snapshot.news(sleeper) is None
        assert not snapshot._log

    async def test_the_log_goes_on_for_those_who_lag(self, snapshot: ResourceSnapshot) -> None:
        first, second = Sleeper(snapshot, PAY), Sleeper(snapshot, ADS)
        for revision, service in ((3, "pay"), (4, "ads"), (5, "pay"), (6, "ads")):
            snapshot.apply([make_change(revision, service)])
        assert PAY in (snapshot.news(first) or ())
        assert len(snapshot._log) == 3
        assert ADS in (snapshot.news(second) or ())
        assert not snapshot._log

    async def test_one_that_fails_hurts_no_other(
        self, snapshot: ResourceSnapshot, caplog: pytest.LogCaptureFixture
    ) -> None:
        class Broken(Stream):
            def wake(self, window: Window) -> None:
                raise RuntimeError("broken")

        Broken(snapshot, PAY)
        stream = Stream(snapshot, PAY)
        snapshot.apply([make_change(3)])
        await snapshot.step()
        assert stream.woken == 1
        assert "could not be woken" in caplog.text

    async def test_one_that_left_is_not_woken(self, snapshot: ResourceSnapshot) -> None:
        stream = Stream(snapshot, PAY)
        snapshot.apply([make_change(3)])
        snapshot.leave(stream)
        snapshot.unsubscribe(PAY, stream)
        await snapshot.step()
        assert stream.woken == 0
        assert not snapshot._log

    async def test_many_are_woken_a_few_at_a_time(self, snapshot: ResourceSnapshot) -> None:
        streams = [Stream(snapshot, PAY) for _ in range(5 * WOKEN_IN_A_TURN)]
        running = asyncio.create_task(snapshot.run())
        await asyncio.sleep(0)
        snapshot.apply([make_change(3)])
        woken, turns = 0, 0
        while woken < len(streams):
            await asyncio.sleep(0)
            now = sum(stream.woken for stream in streams)
            assert now - woken <= 2 * WOKEN_IN_A_TURN
            woken, turns = now, turns + 1
        assert turns >= 4
        running.cancel()

    async def test_one_that_took_its_news_itself_is_not_woken(self, snapshot: ResourceSnapshot) -> None:
        stream = Sleeper(snapshot, PAY)
        snapshot.apply([make_change(3)])
        assert PAY in (snapshot.news(stream) or ())
        await snapshot.step()
        assert stream.woken == 0


class Rule:
    """A follower that wants everything."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.calls: list[Any] = []

    def update(self, roots: Collection[str]) -> Collection[Stream]:
        self.calls.append(set(roots))
        return [self.stream]

    def replace(self) -> Collection[Stream]:
        self.calls.append("all")
        return [self.stream]


async def test_a_later_revision_is_waited_for(snapshot: ResourceSnapshot) -> None:
    later = Clock("e1", 4)
    assert snapshot.clock.is_before(later)
    waiting = asyncio.create_task(snapshot.reached(later))
    snapshot.apply([make_change(3)])
    for _ in range(3):
        await asyncio.sleep(0)
    assert not waiting.done()
    snapshot.apply([make_change(4)])
    await waiting
    assert not snapshot.clock.is_before(later)
    await snapshot.reached(later)


async def test_revisions_of_another_epoch_are_not_later(snapshot: ResourceSnapshot) -> None:
    assert not snapshot.clock.is_before(Clock("e2", 4))
    waiting = asyncio.create_task(snapshot.reached(Clock("e1", 4)))
    await asyncio.sleep(0)
    snapshot.replace(Table(Clock("e2", 1)))
    await waiting


async def test_followers_hear_of_everything(snapshot: ResourceSnapshot) -> None:
    stream = Stream(snapshot)
    rule = Rule(stream)
    snapshot.follow(rule)
    snapshot.apply([make_change(3, "new", ChangeKind.CREATED)])
    await snapshot.step()
    snapshot.replace(content(make_change(4)))
    for _ in range(2):
        snapshot.unfollow(rule)
    snapshot.apply([make_change(5)])
    assert rule.calls == [{"v1~prod~new~acme", "prod~new~acme"}, "all"]
    assert "prod~new~acme" in stream.heard[0]


class TestReplacement:
    """Another table."""

    async def test_only_differences_are_news(self, snapshot: ResourceSnapshot, monkeypatch: pytest.MonkeyPatch) -> None:
        pay, ads = Stream(snapshot, PAY), Stream(snapshot, ADS)
        resource = snapshot.resource(VIEW, ResourceType.RDS, ADS)
        table = content(make_change(3), make_change(2, "ads"))
        compared = await snapshot.compare(table)
        assert compared == {PAY: table.target(PAY), ADS: None}
        looked: list[str] = []
        monkeypatch.setattr(table, "target", looked.append)
        snapshot.replace(table, compared)
        assert looked == []
        monkeypatch.undo()
        await snapshot.step()
        assert (pay.woken, ads.woken) == (1, 0)
        assert snapshot.resource(VIEW, ResourceType.RDS, ADS) is resource
        assert snapshot.target(PAY).slots[0].url == "https://pay.internal/3"

    async def test_what_was_not_compared_is_looked_at(self, snapshot: ResourceSnapshot) -> None:
        table = content(make_change(3))
        compared = await snapshot.compare(table)
        pay, ads = Stream(snapshot, PAY), Stream(snapshot, ADS)
        snapshot.replace(table, compared)
        assert snapshot.has_news(pay)
        assert snapshot.target(ADS).verdict is Verdict.NOT_LIVE
        assert snapshot.has_news(ads)

    async def test_comparing_takes_turns(self, snapshot: ResourceSnapshot, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(module, "COMPARED_IN_A_TURN", 2)
        turns = 0
        take = FairShare.take

        async def counted(share: FairShare) -> None:
            nonlocal turns
            turns += 1
            await take(share)

        monkeypatch.setattr(FairShare, "take", counted)
        Stream(snapshot, PAY, ADS, FAMILY)
        assert set(await snapshot.compare(content())) == {PAY, ADS, FAMILY}
        assert turns == 2
