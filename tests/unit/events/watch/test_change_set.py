"""A change set as events for each filter."""

import asyncio

import pytest

from pointsman.v1.watch_pb2 import WatchResponse
from pointsman_server.events.watch import change_set, encoding
from pointsman_server.events.watch.change_set import ChangeSet
from pointsman_server.events.watch.filters import Filter, FilterIndex
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import FairShare
from tests.support.changes import make_change, make_traffic_change

ALL, ACME, PAY, NOBODY = Filter(), Filter("acme"), Filter("", "pay"), Filter("nobody")


def make_set(count: int = 4) -> ChangeSet:
    """Make a set of which every second change is of the service ``pay``."""
    changes = [make_change(number, "pay" if number % 2 else "ship") for number in range(1, count + 1)]
    return ChangeSet(Clock("e1", count), changes)


def revisions(events: object) -> list[int]:
    assert isinstance(events, list)
    return [change.revision for event in events for change in WatchResponse.FromString(event).changes.changes]


@pytest.fixture
def index() -> FilterIndex:
    one = FilterIndex()
    for wanted in (ALL, ACME, PAY, NOBODY):
        one.add(wanted)
    return one


@pytest.mark.parametrize("turn", [1, 3, 100])
async def test_it_is_picked_for_all_filters_as_for_each(
    index: FilterIndex, turn: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_set, "ENCODED_IN_A_TURN", turn)
    monkeypatch.setattr(change_set, "PICKED_IN_A_TURN", turn)
    one = make_set()
    await one.encode(FairShare())
    picked = await one.pick(index, FairShare())
    assert {wanted: revisions(events) for wanted, events in picked.items()} == {
        ALL: [1, 2, 3, 4],
        ACME: [1, 2, 3, 4],
        PAY: [1, 3],
    }
    assert all(one.events_of(wanted) is events for wanted, events in picked.items())
    assert one.events_of(NOBODY) == ()


async def test_filters_that_match_all_share_the_bytes() -> None:
    one = make_set()
    await one.encode(FairShare())
    assert one.events_of(ACME) is one.events_of(ALL)
    assert one.events_of(PAY) is one.events_of(PAY)


@pytest.mark.parametrize("turn", [1, 100])
async def test_traffic_is_for_those_that_want_it(turn: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(change_set, "PICKED_IN_A_TURN", turn)
    index = FilterIndex()
    wanting = {wanted: wanted._replace(traffic=True) for wanted in (ALL, PAY, NOBODY)}
    for wanted in (*wanting, *wanting.values()):
        index.add(wanted)
    one = ChangeSet(Clock("e1", 3), [make_change(1, "ship"), make_traffic_change(2, "ship"), make_traffic_change(3)])
    await one.encode(FairShare())
    picked = await one.pick(index, FairShare())
    assert {wanted: revisions(events) for wanted, events in picked.items()} == {
        ALL: [1],
        wanting[ALL]: [1, 2, 3],
        wanting[PAY]: [3],
    }
    assert all(one.events_of(wanted) is events for wanted, events in picked.items())
    assert one.events_of(PAY) == one.events_of(NOBODY) == ()


async def test_a_set_without_traffic_is_the_same_for_all() -> None:
    one = make_set()
    await one.encode(FairShare())
    assert one.events_of(ALL) is one.events_of(ALL._replace(traffic=True)) is one.events_of(ACME)


async def test_nothing_is_kept_for_filters_that_nothing_matches() -> None:
    one = make_set()
    await one.encode(FairShare())
    for number in range(100):
        assert one.events_of(Filter(f"nobody-{number}")) == ()
    assert not one._events


async def test_each_change_is_encoded_once(index: FilterIndex, monkeypatch: pytest.MonkeyPatch) -> None:
    encoded = []
    encode = encoding.change
    monkeypatch.setattr(encoding, "change", lambda change: encoded.append(change.revision) or encode(change))
    one = make_set()
    for _ in range(2):
        await one.encode(FairShare())
        await one.pick(index, FairShare())
    assert encoded == [1, 2, 3, 4]


async def test_a_filter_that_is_added_meanwhile_gets_no_part_of_the_set(
    index: FilterIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(change_set, "PICKED_IN_A_TURN", 1)
    one, late = make_set(), Filter("acme", "pay")
    await one.encode(FairShare())
    picking = asyncio.create_task(one.pick(index, FairShare()))
    await asyncio.sleep(0)
    index.add(late)
    assert late not in await picking
    assert revisions(one.events_of(late)) == [1, 3]


async def test_other_work_gets_its_turn_within_a_large_set(index: FilterIndex) -> None:
    share, one = FairShare(), make_set(10 * change_set.PICKED_IN_A_TURN)
    taken = 0
    take = share.take

    async def counted() -> None:
        nonlocal taken
        taken += 1
        await take()

    share.take = counted  # type: ignore[method-assign]
    await one.encode(share)
    assert taken == len(one) / change_set.ENCODED_IN_A_TURN
    taken = 0
    await one.pick(index, share)
    assert taken >= 9
