"""The connectivity of a channel over several backends, for ``subscribe``."""

import threading
from collections import deque
from collections.abc import Callable, Iterable
from functools import partial

import grpc

from pointsman.channels.backends import Backend

Callback = Callable[[grpc.ChannelConnectivity], None]
ChannelBackend = Backend[grpc.Channel]

# What gRPC says of a channel with several connections: the first of these that any of them is in.
_ORDER = (
    grpc.ChannelConnectivity.READY,
    grpc.ChannelConnectivity.CONNECTING,
    grpc.ChannelConnectivity.IDLE,
    grpc.ChannelConnectivity.TRANSIENT_FAILURE,
)


def aggregate(states: Iterable[grpc.ChannelConnectivity], *, live: bool) -> grpc.ChannelConnectivity:
    """Return the state of a channel whose backends are in ``states``; ``live``: whether calls have anywhere to go."""
    known = set(states)
    if not live:
        return grpc.ChannelConnectivity.TRANSIENT_FAILURE
    return next((state for state in _ORDER if state in known), grpc.ChannelConnectivity.IDLE)


class Connectivity:
    """Who wants to know the state, and the states of the backends that new calls are meant for.

    Callbacks are called one after another, in threads of their own.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._callbacks: dict[int, tuple[Callback, grpc.ChannelConnectivity | None]] = {}
        self._followed: dict[ChannelBackend, tuple[Callback, grpc.ChannelConnectivity]] = {}
        self._live = True
        self._queue: deque[tuple[Callback, grpc.ChannelConnectivity]] = deque()
        self._delivering = False
        self.connects = False
        """Whether anyone wants the channel to connect without a call."""

    @property
    def wanted(self) -> bool:
        """Whether anyone wants to know the state."""
        return bool(self._callbacks)

    def subscribe(self, callback: Callback, *, connects: bool) -> None:
        """Call ``callback`` with the state now, and with each other one."""
        with self._lock:
            self.connects |= connects
            self._callbacks[id(callback)] = (callback, None)

    def unsubscribe(self, callback: Callback) -> None:
        """Call it no more."""
        with self._lock:
            self._callbacks = {key: each for key, each in self._callbacks.items() if each[0] != callback}
            if self._callbacks:
                return
            self.connects = False
            followed, self._followed = self._followed, {}
        for backend, (listener, _) in followed.items():
            backend.channel.unsubscribe(listener)

    def follow(self, backends: Iterable[ChannelBackend], *, live: bool | None = None) -> None:
        """Take note of the backends that new calls are meant for; ``live``: whether there is anywhere to go."""
        with self._lock:
            if not self._callbacks:
                return
            self._live = self._live if live is None else live
            wanted = set(backends)
            gone = {each: self._followed.pop(each) for each in [*self._followed] if each not in wanted}
            new = {each: partial(self._on_state, each) for each in wanted if each not in self._followed}
            for backend, listener in new.items():
                self._followed[backend] = (listener, grpc.ChannelConnectivity.IDLE)
            connects = self.connects
        for backend, (old, _) in gone.items():
            backend.channel.unsubscribe(old)
        for backend, listener in new.items():
            backend.channel.subscribe(listener, try_to_connect=connects)
        self._changed()

    def after_fork_in_child(self) -> None:
        """Follow nothing: the backends are the parent's."""
        self._lock = threading.Lock()
        self._followed = {}
        self._delivering = False
        self._queue.clear()

    def _on_state(self, backend: ChannelBackend, state: grpc.ChannelConnectivity) -> None:
        with self._lock:
            followed = self._followed.get(backend)
            if followed is None:
                return
            self._followed[backend] = (followed[0], state)
        self._changed()

    def _changed(self) -> None:
        with self._lock:
            state = aggregate((state for _, state in self._followed.values()), live=self._live)
            for key, (callback, last) in self._callbacks.items():
                if last is not state:
                    self._callbacks[key] = (callback, state)
                    self._queue.append((callback, state))
            if not self._queue or self._delivering:
                return
            self._delivering = True
        threading.Thread(target=self._deliver, name="pointsman-connectivity", daemon=True).start()

    def _deliver(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._delivering = False
                    return
                callback, state = self._queue.popleft()
                if all(callback != each for each, _ in self._callbacks.values()):
                    continue
            callback(state)
