"""A channel that is collected without ``close``: it leaves neither a callback nor a near-cache behind."""

import threading
import weakref
from collections.abc import Callable
from typing import Any

from pointsman.channels.routes import Routes
from pointsman.near_cache.base import BaseNearCache


def follow(routes: Routes, changed: Callable[[], None]) -> Callable[[], object]:
    """Let ``routes`` call a method after changes, for as long as its object exists. Returns what ends that before."""
    method = weakref.WeakMethod(changed)

    def call() -> None:
        found = method()
        if found is not None:
            found()

    return _when_collected(method().__self__, routes.follow(call))  # type: ignore[union-attr]


def shut_down_with(channel: object, cache: BaseNearCache[Any, Any]) -> None:
    """Shut down the near-cache that a channel has made for itself when the channel is collected."""
    _when_collected(channel, lambda: None if cache.closed else _shut_down(cache))


def _when_collected(collected: object, end: Callable[[], object]) -> Callable[[], object]:
    ended = weakref.finalize(collected, end)
    ended.atexit = False
    return ended


def _shut_down(cache: BaseNearCache[Any, Any]) -> None:
    """In a thread: it waits, and the thread that collects may be any, also one of the near-cache."""
    threading.Thread(target=cache.shut_down, name="pointsman-near-cache-end", daemon=True).start()
