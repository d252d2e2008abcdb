"""runtime.event_loop: uvloop where it is installed."""

import asyncio
import sys

import pytest
import uvloop

from pointsman_server.runtime import event_loop


async def loop() -> asyncio.AbstractEventLoop:
    return asyncio.get_running_loop()


def test_it_is_uvloop() -> None:
    assert isinstance(event_loop.run(loop()), uvloop.Loop)


def test_it_is_that_of_asyncio_where_uvloop_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "uvloop", None)

    assert event_loop.factory() is None
    assert not isinstance(event_loop.run(loop()), uvloop.Loop)
