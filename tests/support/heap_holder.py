"""An application in Envoy that holds native memory while a file says how much: the megabytes, or nothing.

It answers every request at once, but for ``/slow``, which waits for another file: ``.finish``.
"""

import asyncio
import ctypes
import os
from pathlib import Path

from starlette.types import Receive, Scope, Send

FILE = "POINTSMAN_INTERNAL_HOLD"
POLL_SECONDS = 0.02
BODY = b"served"

_malloc = ctypes.pythonapi.PyMem_RawMalloc
_malloc.argtypes, _malloc.restype = [ctypes.c_size_t], ctypes.c_void_p
_free = ctypes.pythonapi.PyMem_RawFree
_free.argtypes = [ctypes.c_void_p]


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Serve one scope."""
    await receive()
    if scope["type"] == "lifespan":
        holding = asyncio.create_task(_hold(Path(os.environ[FILE])))
        await send({"type": "lifespan.startup.complete"})
        await receive()
        holding.cancel()
        return
    while scope["path"] == "/slow" and not Path(os.environ[FILE]).with_suffix(".finish").exists():  # noqa: ASYNC110 - made by another process
        await asyncio.sleep(POLL_SECONDS)
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": BODY})


async def _hold(file: Path) -> None:
    # Reserved, and never written: the machine lends it no memory.
    held = None
    while True:
        megabytes = file.read_text()  # noqa: ASYNC240 - a few bytes
        if megabytes and held is None:
            held = _malloc(int(megabytes) << 20)
        elif not megabytes and held is not None:
            _free(held)
            held = None
        await asyncio.sleep(POLL_SECONDS)
