"""The event loop: uvloop, which is a tenth faster than that of asyncio, where it is installed."""

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


def factory() -> Callable[[], asyncio.AbstractEventLoop] | None:
    """Return what makes an event loop; None for that of asyncio."""
    try:
        import uvloop
    except ImportError:
        return None
    return uvloop.new_event_loop


def run(main: Coroutine[Any, Any, T]) -> T:
    """Run ``main`` to its end."""
    with asyncio.Runner(loop_factory=factory()) as runner:
        return runner.run(main)
