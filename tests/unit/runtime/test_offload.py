"""Small work runs at once, large work in a thread."""

import threading

import pytest

from pointsman_server.runtime.offload import LARGE, in_thread_if_large


@pytest.mark.parametrize(("size", "here"), [(0, True), (LARGE, True), (LARGE + 1, False)])
async def test_large_work_runs_in_a_thread(size: int, here: bool) -> None:
    thread = await in_thread_if_large(threading.current_thread, size)
    assert (thread is threading.current_thread()) == here


@pytest.mark.parametrize("size", [1, LARGE + 1])
async def test_an_error_of_the_work_is_raised(size: int) -> None:
    def work() -> None:
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        await in_thread_if_large(work, size)
