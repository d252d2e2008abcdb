"""The state of a channel over several backends."""

import threading
from collections.abc import Callable
from typing import Any, cast

import grpc
import pytest

from pointsman.channels.backends import Backend
from pointsman.channels.connectivity import Connectivity, aggregate
from tests.support.waiting import eventually

State = grpc.ChannelConnectivity
ALL = [State.READY, State.CONNECTING, State.IDLE, State.TRANSIENT_FAILURE]


class FakeChannel:
    def __init__(self) -> None:
        self.listeners: list[Callable[[State], None]] = []
        self.connects: list[bool] = []

    def subscribe(self, callback: Callable[[State], None], try_to_connect: bool = False) -> None:
        self.listeners.append(callback)
        self.connects.append(try_to_connect)

    def unsubscribe(self, callback: Callable[[State], None]) -> None:
        self.listeners.remove(callback)

    def become(self, state: State) -> None:
        for each in self.listeners:
            each(state)


def backend() -> tuple[Backend[grpc.Channel], FakeChannel]:
    channel = FakeChannel()
    return Backend("http://one", cast("grpc.Channel", channel)), channel


@pytest.mark.parametrize("first", range(4))
def test_the_best_state_of_any_backend_counts(first: int) -> None:
    assert aggregate(reversed(ALL[first:]), live=True) is ALL[first]
    assert aggregate(ALL, live=False) is State.TRANSIENT_FAILURE
    assert aggregate([], live=True) is State.IDLE


def test_subscribers_are_told_each_other_state() -> None:
    connectivity, told = Connectivity(), []
    one, first = backend()
    two, second = backend()
    connectivity.follow([one], live=True)
    assert first.listeners == [], "nobody wants to know"
    connectivity.subscribe(told.append, connects=True)
    connectivity.follow([one, two], live=True)
    assert (first.connects, second.connects) == ([True], [True])
    assert eventually(lambda: told == [State.IDLE])
    first.become(State.CONNECTING)
    second.become(State.CONNECTING)
    first.become(State.READY)
    assert eventually(lambda: told[1:] == [State.CONNECTING, State.READY])
    connectivity.follow([two])
    assert eventually(lambda: told[3:] == [State.CONNECTING])
    assert first.listeners == []
    connectivity.follow([], live=False)
    assert eventually(lambda: told[4:] == [State.TRANSIENT_FAILURE])


def test_a_later_subscriber_is_told_the_state_now() -> None:
    connectivity, early, late = Connectivity(), cast("list[Any]", []), cast("list[Any]", [])
    connectivity.subscribe(early.append, connects=False)
    connectivity.follow([backend()[0]], live=True)
    connectivity.subscribe(late.append, connects=False)
    connectivity.follow([backend()[0]], live=True)
    assert eventually(lambda: late == [State.IDLE])
    assert early == [State.IDLE]


class Blocking:
    """A callback that ends when it is let go on."""

    def __init__(self) -> None:
        self.told: list[State] = []
        self.go_on = threading.Event()

    def __call__(self, state: State) -> None:
        self.told.append(state)
        self.go_on.wait(20.0)


def test_callbacks_are_called_one_after_another() -> None:
    connectivity, slow = Connectivity(), Blocking()
    before = set(threading.enumerate())
    connectivity.subscribe(slow, connects=False)
    connectivity.follow([], live=True)
    assert eventually(lambda: slow.told == [State.IDLE])
    connectivity.follow([], live=False)
    try:
        assert len(set(threading.enumerate()) - before) == 1
    finally:
        slow.go_on.set()
    assert eventually(lambda: slow.told == [State.IDLE, State.TRANSIENT_FAILURE])


def test_one_that_unsubscribes_while_others_wait_hurts_none() -> None:
    connectivity, slow, told = Connectivity(), Blocking(), cast("list[Any]", [])
    connectivity.subscribe(slow, connects=False)
    connectivity.follow([], live=True)
    assert eventually(lambda: slow.told == [State.IDLE])
    connectivity.subscribe(told.append, connects=False)
    connectivity.follow([], live=False)
    connectivity.unsubscribe(slow)
    slow.go_on.set()
    assert eventually(lambda: told == [State.TRANSIENT_FAILURE])
    assert slow.told == [State.IDLE]


def test_without_subscribers_nothing_is_followed() -> None:
    connectivity, told = Connectivity(), cast("list[Any]", [])
    one, channel = backend()
    connectivity.subscribe(told.append, connects=True)
    connectivity.follow([one], live=True)
    assert eventually(lambda: told == [State.IDLE])
    connectivity.unsubscribe(told.append)
    assert (channel.listeners, connectivity.wanted, connectivity.connects) == ([], False, False)
    connectivity.follow([one], live=True)
    assert channel.listeners == []
    assert told == [State.IDLE]


def test_a_child_follows_backends_of_its_own() -> None:
    connectivity, told = Connectivity(), cast("list[Any]", [])
    one, inherited = backend()
    connectivity.subscribe(told.append, connects=False)
    connectivity.follow([one], live=True)
    connectivity.after_fork_in_child()
    two, channel = backend()
    connectivity.follow([two], live=True)
    assert (len(channel.listeners), len(inherited.listeners)) == (1, 1)
    inherited.become(State.READY)
    channel.become(State.CONNECTING)
    assert eventually(lambda: told == [State.IDLE, State.CONNECTING])
