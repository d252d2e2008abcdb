from datetime import timedelta
from typing import Any

import pytest

from pointsman.errors import InvalidArgument, PermissionDenied, ResourceExhausted, Unavailable
from pointsman.near_cache.options import MAX_STALE_SECONDS
from pointsman.near_cache.watch.protocol import (
    FIRST_PAUSE_SECONDS,
    LONGEST_PAUSE_SECONDS,
    LONGEST_SILENCE_SECONDS,
    PROVEN_SECONDS,
    REFUSED_PAUSE_SECONDS,
    SILENCE_SECONDS,
    Apply,
    Confirm,
    Position,
    ProtocolViolation,
    Replace,
    WatchProtocol,
)
from pointsman.v1.watch_pb2 import Reset, WatchResponse
from tests.support.watch_events import (
    EPOCH,
    Division,
    change,
    changes,
    checkpoint,
    end_of_snapshot,
    opened,
    reset,
    route,
    snapshot,
    token,
    traffic,
    traffic_change,
)

KEY, OTHER = "team-a/payments/prod/v1", "team-a/payments/prod/v2"
FAMILY = "team-a/payments/prod"
TRAFFIC = traffic(FAMILY, 5, Division((("v1", 10_000),)))
NEW_EPOCH = "epoch-2"


class Watch:
    """A protocol, and a clock."""

    def __init__(self, position: Position | None = None, **traffic: bool) -> None:
        self.now = 100.0
        self.protocol: WatchProtocol[str] = WatchProtocol(
            lambda each: each.url, position, jitter=lambda: 0.0, **traffic
        )
        self.protocol.opened(self.now)

    def take(self, *events: WatchResponse) -> list[Any]:
        return [step for each in events if (step := self.protocol.received(each, self.now)) is not None]

    def end(self, error: Exception | None = None) -> float:
        return self.protocol.ended(error, self.now)


@pytest.fixture
def watch() -> Watch:
    return Watch()


@pytest.fixture
def following(watch: Watch) -> Watch:
    """A watch that has everything up to revision 5."""
    watch.take(snapshot(5, [route(KEY, 5)]), end_of_snapshot(5, 1), checkpoint(5))
    return watch


def test_batches_become_one_table_at_their_end(watch: Watch) -> None:
    assert watch.take(snapshot(5, [route(KEY, 4, "https://1")]), snapshot(5, [route(OTHER, 5, "https://2")])) == []
    assert watch.protocol.position is None
    assert watch.take(end_of_snapshot(5, 2)) == [Replace(Position(EPOCH, 5), ["https://1", "https://2"])]
    assert watch.protocol.resume == token(5)


def test_an_empty_table_is_one_that_the_server_calls_empty(watch: Watch) -> None:
    assert watch.take(end_of_snapshot(5, 0)) == [Replace(Position(EPOCH, 5), [])]


@pytest.mark.parametrize(
    "events",
    [
        [snapshot(5, [route(KEY, 5)]), end_of_snapshot(5, 2)],
        [end_of_snapshot(5, 1)],
        [snapshot(5, [route(KEY, 5)]), end_of_snapshot(5, 0)],
        [snapshot(5, [route(KEY, 5)]), snapshot(6, [])],
        [snapshot(5, [route(KEY, 5)]), end_of_snapshot(6, 1)],
        [snapshot(5, [route(KEY, 5)]), end_of_snapshot(5, 1, NEW_EPOCH)],
        [changes(5, [change(KEY, 5, route(KEY, 5))])],
        [checkpoint(5)],
    ],
)
def test_a_snapshot_that_is_not_whole_is_refused_and_started_over(watch: Watch, events: list[WatchResponse]) -> None:
    with pytest.raises(ProtocolViolation):
        watch.take(*events)
    assert watch.protocol.position is None
    watch.end(ProtocolViolation())
    watch.protocol.opened(watch.now)
    assert watch.protocol.resume is None
    # What was received before counts no more.
    assert watch.take(end_of_snapshot(7, 0)) == [Replace(Position(EPOCH, 7), [])]


def test_a_change_set_in_parts_is_applied_at_once(following: Watch) -> None:
    parts = [change(KEY, 6, route(KEY, 6), 7), change(OTHER, 7, None, 7)]
    assert following.take(changes(7, parts[:1], partial=True)) == []
    assert following.protocol.resume == token(5)
    assert following.take(changes(7, parts[1:])) == [Apply(Position(EPOCH, 7), parts)]
    assert following.protocol.resume == token(7)


def test_half_a_change_set_is_dropped_with_its_stream(following: Watch) -> None:
    part = [change(KEY, 6, route(KEY, 6), 7)]
    following.take(changes(7, part, partial=True))
    with pytest.raises(ProtocolViolation):
        following.take(checkpoint(7))
    following.end()
    following.protocol.opened(following.now)
    assert following.protocol.resume == token(5)
    assert following.take(changes(7, [change(OTHER, 7, None)])) == [Apply(Position(EPOCH, 7), [change(OTHER, 7, None)])]


def test_what_is_known_is_not_applied_again(following: Watch) -> None:
    assert following.take(changes(4, [change(KEY, 4, route(KEY, 4))])) == []
    assert following.take(changes(6, [change(KEY, 5, None), change(KEY, 6, None)])) == [
        Apply(Position(EPOCH, 6), [change(KEY, 6, None)])
    ]


def test_a_checkpoint_says_how_old_the_table_is_and_who_waits(following: Watch) -> None:
    assert following.take(checkpoint(6, age=2.5, report=True)) == [Confirm(Position(EPOCH, 6), 2.5, True)]
    assert following.protocol.live


@pytest.mark.parametrize(
    "event",
    [checkpoint(4), checkpoint(9, NEW_EPOCH), changes(9, [], NEW_EPOCH), snapshot(9, []), end_of_snapshot(9, 0)],
)
def test_what_the_protocol_rules_out_is_refused(following: Watch, event: WatchResponse) -> None:
    with pytest.raises(ProtocolViolation):
        following.take(event)
    assert following.protocol.position == Position(EPOCH, 5)


def test_an_event_that_is_not_known_is_ignored(following: Watch) -> None:
    assert following.take(WatchResponse()) == []


def test_a_reset_keeps_what_there_is_until_the_next_snapshot_ends(following: Watch) -> None:
    assert following.take(reset(Reset.REASON_EPOCH_CHANGED), snapshot(2, [route(KEY, 1)], NEW_EPOCH)) == []
    assert (following.protocol.position, following.protocol.live) == (Position(EPOCH, 5), False)
    assert following.protocol.resume is None
    assert following.take(end_of_snapshot(2, 1, NEW_EPOCH))[0].as_of == Position(NEW_EPOCH, 2)
    assert following.take(checkpoint(2, NEW_EPOCH)) != []


def test_a_stream_that_is_lost_after_a_reset_begins_with_a_snapshot(following: Watch) -> None:
    following.take(reset())
    following.end()
    following.protocol.opened(following.now)
    assert following.protocol.resume is None
    assert following.take(end_of_snapshot(9, 0))


def test_a_snapshot_of_a_server_that_is_behind_is_refused(following: Watch) -> None:
    following.take(reset())
    with pytest.raises(ProtocolViolation):
        following.take(end_of_snapshot(4, 0))
    following.take(reset(), end_of_snapshot(2, 0, NEW_EPOCH), reset())
    with pytest.raises(ProtocolViolation):
        following.take(end_of_snapshot(8, 0))
    following.now += 120
    assert following.take(reset(), end_of_snapshot(8, 0))  # it is not refused for good


def test_it_goes_on_from_what_a_disk_has() -> None:
    watch = Watch(Position(EPOCH, 5))
    assert watch.protocol.resume == token(5)
    assert watch.take(checkpoint(5)) == [Confirm(Position(EPOCH, 5), 0.0, False)]


@pytest.mark.parametrize("reason", ["REVISION_COMPACTED", "EPOCH_CHANGED"])
def test_where_a_position_is_void_a_snapshot_is_asked_for_at_once(following: Watch, reason: str) -> None:
    assert following.end(InvalidArgument("void", reason=reason)) == FIRST_PAUSE_SECONDS
    assert following.protocol.resume is None
    # A server that says it again is not asked again and again at once.
    pauses = [following.end(InvalidArgument("void", reason=reason)) for _ in range(8)]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS


def test_pauses_grow_and_stay_below_max_stale(watch: Watch) -> None:
    pauses = [watch.end(Unavailable("away")) for _ in range(100)]
    assert pauses[:4] == [0.1, 0.2, 0.4, 0.8]
    assert pauses[-1] == LONGEST_PAUSE_SECONDS
    assert max(LONGEST_PAUSE_SECONDS * 2, REFUSED_PAUSE_SECONDS, SILENCE_SECONDS) < MAX_STALE_SECONDS


def test_a_stream_that_lasted_makes_the_next_pause_short(watch: Watch) -> None:
    for _ in range(10):
        watch.end(Unavailable("away"))
    watch.protocol.opened(watch.now)
    watch.take(end_of_snapshot(5, 0))
    assert watch.end() == LONGEST_PAUSE_SECONDS
    watch.protocol.opened(watch.now)
    watch.take(checkpoint(5))
    watch.now += PROVEN_SECONDS
    assert watch.end() == FIRST_PAUSE_SECONDS


def test_pauses_differ_between_clients() -> None:
    most: WatchProtocol[Any] = WatchProtocol(lambda each: each, jitter=lambda: 1.0)
    assert most.ended(None, 0.0) == FIRST_PAUSE_SECONDS / 2


def test_the_server_may_ask_for_a_longer_pause(watch: Watch) -> None:
    wait = ResourceExhausted("overloaded", reason="OVERLOADED", retry_delay=timedelta(seconds=3))
    assert watch.end(wait) == 3.0
    assert watch.end(ResourceExhausted("no", retry_delay=timedelta(days=1))) == LONGEST_PAUSE_SECONDS


def test_what_is_forbidden_is_tried_again_slowly(following: Watch) -> None:
    assert following.end(PermissionDenied("no")) == REFUSED_PAUSE_SECONDS
    assert following.protocol.resume == token(5)


def test_silence_has_a_limit_and_a_slow_server_gets_more(watch: Watch) -> None:
    limits = []
    for _ in range(6):
        watch.protocol.opened(watch.now)
        limits.append(watch.protocol.silent_at - watch.now)
        watch.end()
    assert limits == [15.0, 30.0, 60.0, 120.0, LONGEST_SILENCE_SECONDS, LONGEST_SILENCE_SECONDS]
    watch.protocol.opened(watch.now)
    watch.take(WatchResponse())
    assert watch.protocol.silent_at == watch.now + SILENCE_SECONDS
    watch.end()
    assert watch.protocol.silent_at == float("inf")


def test_a_checkpoint_that_waited_in_a_buffer_is_not_new(following: Watch) -> None:
    following.now = 100.0
    assert following.take(checkpoint(5, server_time=1000.0))[0].age == 0.0
    following.now = 110.0
    assert following.take(checkpoint(5, server_time=1004.0))[0].age == pytest.approx(6.0)
    following.now = 130.0
    with pytest.raises(ProtocolViolation):
        following.take(checkpoint(7, server_time=1008.0))
    # What it says is not taken: the table has not got it.
    assert following.protocol.position == Position(EPOCH, 5)
    following.end()
    following.protocol.opened(following.now)
    assert following.take(checkpoint(5, server_time=1030.0))[0].age == 0.0


# Traffic


@pytest.fixture
def divided() -> Watch:
    """A watch that has everything up to revision 5, traffic too, and needs that."""
    watch = Watch(needs_traffic=True)
    [replaced, _] = watch.take(
        opened(),
        snapshot(5, [route(KEY, 4)]),
        snapshot(5, [], traffic=[TRAFFIC]),
        end_of_snapshot(5, 1, traffic_count=1),
        checkpoint(5),
    )
    assert (len(replaced.routes), replaced.traffic) == (1, [TRAFFIC])
    assert watch.protocol.has_traffic
    return watch


def again(watch: Watch) -> None:
    """Lose the stream, and open the next one."""
    watch.end()
    watch.protocol.opened(watch.now)


@pytest.mark.parametrize("count", [0, 2])
def test_traffic_that_is_not_whole_is_refused(watch: Watch, count: int) -> None:
    with pytest.raises(ProtocolViolation, match="traffic"):
        watch.take(opened(), snapshot(5, [], traffic=[TRAFFIC]), end_of_snapshot(5, 0, traffic_count=count))


def test_no_traffic_is_not_the_same_as_a_server_that_sends_none(watch: Watch) -> None:
    [none] = watch.take(opened(), end_of_snapshot(5, 0))
    assert (none.traffic, watch.protocol.has_traffic) == ([], True)
    watch.protocol.ended(InvalidArgument("gone", reason="REVISION_COMPACTED"), watch.now)
    watch.protocol.opened(watch.now)
    [unknown] = watch.take(end_of_snapshot(6, 0))
    assert (unknown.traffic, watch.protocol.has_traffic) == (None, False)


def test_traffic_and_routes_of_a_set_in_parts_are_applied_at_once(divided: Watch) -> None:
    made = [traffic_change(FAMILY, 6, None, 7), change(KEY, 7, None, 7)]
    [applied] = divided.take(changes(7, made[:1], partial=True), changes(7, made[1:]))
    assert applied == Apply(Position(EPOCH, 7), made)
    assert divided.protocol.has_traffic


def test_a_stream_that_has_traffic_is_resumed(divided: Watch) -> None:
    again(divided)
    assert divided.take(opened(), checkpoint(6))
    assert divided.protocol.has_traffic


@pytest.mark.parametrize("event", [checkpoint(6), changes(6, [change(KEY, 6, None)])])
def test_a_server_that_does_not_send_traffic_voids_it_before_anything_else(divided: Watch, event: Any) -> None:
    again(divided)
    assert divided.protocol.has_traffic
    divided.take(event)
    assert not divided.protocol.has_traffic
    assert divided.protocol.position == Position(EPOCH, 6)


@pytest.mark.parametrize("needs", [True, False])
def test_a_server_that_sends_it_again_is_asked_for_a_snapshot_by_those_who_need_it(needs: bool) -> None:
    watch = Watch(Position(EPOCH, 5), needs_traffic=needs)
    if not needs:
        watch.take(opened(), checkpoint(5))
        assert not watch.protocol.has_traffic
        return
    with pytest.raises(ProtocolViolation, match="a snapshot is needed"):
        watch.take(opened())
    again(watch)
    assert watch.protocol.resume is None
    assert watch.protocol.position == Position(EPOCH, 5)
    watch.take(opened(), end_of_snapshot(6, 0))
    assert watch.protocol.has_traffic


def test_what_a_disk_has_with_traffic_is_resumed() -> None:
    watch = Watch(Position(EPOCH, 5), needs_traffic=True, has_traffic=True)
    watch.take(opened(), checkpoint(5))
    assert watch.protocol.has_traffic
    assert watch.protocol.resume == token(5)


def test_half_a_snapshot_with_traffic_is_dropped_with_its_stream(watch: Watch) -> None:
    watch.take(opened(), snapshot(5, [], traffic=[TRAFFIC]))
    again(watch)
    [replaced] = watch.take(opened(), end_of_snapshot(5, 0))
    assert replaced.traffic == []
