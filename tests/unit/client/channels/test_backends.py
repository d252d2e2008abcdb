"""When a backend is opened, used again, drained and closed."""

from collections.abc import Callable

import pytest

from pointsman.channels.backends import IDLE_SECONDS, LINGER_SECONDS, MOST_BACKENDS, Backend, Backends

ONE, TWO, THREE = "http://one", "http://two", "http://three"
DRAIN_SECONDS = 60.0


class Rig:
    def __init__(self) -> None:
        self.now = 1000.0
        self.opened: list[str] = []
        self.wakes = 0
        self.backends: Backends[str] = Backends(
            self.open, self.wake, drain_seconds=DRAIN_SECONDS, clock=lambda: self.now
        )
        self.begin, self.end, self.want = self.backends.begin, self.backends.end, self.backends.want

    def open(self, url: str) -> str:
        self.opened.append(url)
        return f"channel to {url}"

    def wake(self) -> None:
        self.wakes += 1

    def call(self, url: str) -> None:
        self.end(self.begin(url))

    def want_only(self, *urls: str) -> None:
        self.want(frozenset(urls))

    def closed(self) -> list[str]:
        ended, _ = self.backends.due()
        return [backend.url for backend in ended]

    def next_in(self) -> float | None:
        return self.backends.due()[1]


@pytest.fixture
def rig() -> Rig:
    return Rig()


def test_calls_of_a_url_share_a_backend(rig: Rig) -> None:
    first, second = rig.begin(ONE), rig.begin(ONE)
    assert first is second
    assert (first.url, first.channel, first.calls, rig.opened) == (ONE, f"channel to {ONE}", 2, [ONE])
    assert rig.backends.current() == [first]


def test_the_only_one_is_never_closed(rig: Rig) -> None:
    rig.call(ONE)
    rig.now += 10 * IDLE_SECONDS
    assert rig.backends.due() == ([], None)
    assert rig.wakes == 0


def test_one_whose_url_has_left_is_closed_when_its_calls_have_ended(rig: Rig) -> None:
    rig.want_only(ONE)
    call = rig.begin(ONE)
    rig.want_only(TWO)
    assert rig.wakes == 1
    assert rig.backends.current() == []
    rig.now += DRAIN_SECONDS - 1
    assert rig.closed() == []
    assert rig.next_in() == 1
    rig.end(call)
    assert rig.wakes == 2
    assert rig.next_in() == LINGER_SECONDS
    rig.now += LINGER_SECONDS
    assert rig.closed() == [ONE]
    assert rig.backends.due() == ([], None)


def test_calls_that_do_not_end_are_ended_after_the_drain(rig: Rig) -> None:
    call = rig.begin(ONE)
    rig.want_only()
    rig.now += DRAIN_SECONDS
    assert rig.closed() == [ONE]
    rig.end(call)
    assert rig.closed() == []


def test_one_whose_url_comes_back_is_used_again(rig: Rig) -> None:
    first = rig.begin(ONE)
    rig.want_only(TWO)
    rig.want_only(ONE)
    rig.now += 2 * DRAIN_SECONDS
    assert rig.closed() == []
    assert rig.begin(ONE) is first
    assert rig.opened == [ONE]


def test_a_call_that_read_the_url_before_it_left_goes_there(rig: Rig) -> None:
    """By the near-cache the URL has left, but it is what the call was told: by the server, or a moment ago."""
    rig.want_only(TWO)
    late = rig.begin(ONE)
    rig.now += DRAIN_SECONDS - 1
    assert rig.closed() == []
    rig.begin(ONE)
    rig.now += 2
    assert rig.closed() == [], "the drain begins anew with each call that is sent there"
    rig.end(late)
    rig.end(late)
    rig.now += LINGER_SECONDS
    assert rig.closed() == [ONE]


def test_of_several_those_that_are_idle_are_closed(rig: Rig) -> None:
    rig.want_only(ONE, TWO)
    rig.call(ONE)
    rig.call(TWO)
    assert rig.wakes == 1, "once there are several, somebody must look after them"
    rig.now += IDLE_SECONDS - 1
    rig.call(TWO)
    assert rig.next_in() == 1
    rig.now += 1
    assert rig.closed() == [ONE]
    rig.now += 10 * IDLE_SECONDS
    assert rig.backends.due() == ([], None)


def test_who_is_left_alone_is_not_waited_for(rig: Rig) -> None:
    rig.call(ONE)
    rig.want_only(TWO)
    rig.call(TWO)
    rig.now += LINGER_SECONDS
    ended, again_in = rig.backends.due()
    assert ([each.url for each in ended], again_in) == ([ONE], None)


def test_of_several_those_with_calls_are_not_idle(rig: Rig) -> None:
    rig.want_only(ONE, TWO)
    rig.begin(ONE)
    rig.begin(TWO)
    rig.now += 10 * IDLE_SECONDS
    assert rig.backends.due() == ([], None)


def test_urls_that_flap_pile_nothing_up(rig: Rig) -> None:
    calls: list[Backend[str]] = []
    closed: list[str] = []
    for number in range(5 * MOST_BACKENDS):
        url = f"http://{number}"
        rig.want_only(url)
        calls.append(rig.begin(url))
        closed += rig.closed()
        assert len(rig.opened) - len(closed) <= MOST_BACKENDS
        rig.now += 0.001
    assert closed == rig.opened[: len(closed)], "those that left first are closed first"


def test_nothing_is_opened_once_it_is_closed(rig: Rig) -> None:
    first = rig.begin(ONE)
    assert not rig.backends.closed
    assert rig.backends.close() == [first]
    assert rig.backends.closed
    assert rig.backends.close() == []
    for call in (rig.begin, rig.backends.open):
        with pytest.raises(ValueError, match="Cannot invoke RPC on closed channel!"):
            call(ONE)
    rig.end(first)


def test_what_cannot_be_opened_is_tried_again(rig: Rig) -> None:
    def refuse(url: str) -> str:
        raise OSError(url)

    works: Callable[[str], str] = rig.backends._open_channel
    rig.backends._open_channel = refuse
    with pytest.raises(OSError, match=ONE):
        rig.begin(ONE)
    rig.backends._open_channel = works
    assert rig.begin(ONE).calls == 1


def test_before_a_fork_those_without_calls_are_closed(rig: Rig) -> None:
    busy = rig.begin(ONE)
    rig.call(TWO)
    assert [each.url for each in rig.backends.before_fork()] == [TWO]
    rig.backends.after_fork_in_parent()
    assert rig.begin(ONE) is busy


def test_a_child_has_none(rig: Rig) -> None:
    busy = rig.begin(ONE)
    rig.want_only(TWO)
    assert rig.backends.before_fork() == []
    assert rig.backends.after_fork_in_child() == [busy]
    fresh = rig.begin(ONE)
    assert fresh is not busy
    assert fresh.left_at is None, "which URLs are wanted the child hears anew"
