"""Background tasks: started by name, logged when one ends with an error, cancelled when the server stops."""

import asyncio
from collections.abc import Coroutine
from contextlib import AsyncExitStack
from typing import Any

from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)

# How long a background task may take to end; the relay waits for the batch that it has sent.
CANCEL_SECONDS = 7.0


def start_task(stack: AsyncExitStack, name: str, work: Coroutine[Any, Any, None]) -> None:
    """Run ``work`` as a task until ``stack`` closes."""
    task = asyncio.create_task(work, name=name)
    task.add_done_callback(_log_failure)
    stack.push_async_callback(end, task)


async def end(task: asyncio.Task[None], patience: float = CANCEL_SECONDS) -> None:
    """Cancel a task until it has ended, again every ``patience`` seconds.

    ``asyncio.wait_for``, by which psycopg_pool waits, loses a cancellation that arrives at the moment when the awaited
    result does (bugs.python.org/issue37658, fixed in Python 3.12). ``patience`` is longer than any task takes to end.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=patience)


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception():
        log.error("a background task ended", task=task.get_name(), exc_info=task.exception())
