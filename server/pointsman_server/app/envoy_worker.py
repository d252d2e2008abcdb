"""The server as Envoy runs it: an ASGI application that starts and drains with the process.

Envoy calls ``application`` once for its lifespan, before it listens, and then for each request.
"""

import asyncio
import os
import shutil
import signal
import sys
import threading
from collections.abc import Awaitable, Callable, Coroutine
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, TypeVar

from starlette.types import Receive, Scope, Send

from pointsman_server.adapters.files.policy import PolicyError
from pointsman_server.app import envoy
from pointsman_server.app.background import start_task
from pointsman_server.app.listening import ListenError
from pointsman_server.app.preload import preload
from pointsman_server.config.environment import load
from pointsman_server.config.settings import Settings
from pointsman_server.rpc.transport.certificates import BadCertificates
from pointsman_server.rpc.transport.envoy.admin import Admin
from pointsman_server.telemetry import logs

T = TypeVar("T")
Serve = Callable[[Scope, Receive, Send], Awaitable[None]]


class Worker:
    """Serves the lifespan first, and once it has started what the server answers. A call returns a coroutine."""

    # pyvoy would else take a function that is not a coroutine for an application of ASGI 2.
    _asgi_single_callable = True

    def __init__(self) -> None:
        self._serve: Serve = self._live

    def __call__(self, scope: Scope, receive: Receive, send: Send) -> Awaitable[None]:
        """Serve one scope."""
        return self._serve(scope, receive, send)

    async def _live(self, _scope: Scope, receive: Receive, send: Send) -> None:
        await receive()
        settings = load()
        logs.configure(settings.log_level, settings.log_format)
        preload(with_kafka=bool(settings.kafka_bootstrap_servers))
        stopping = asyncio.Event()
        _wait_for_signal(stopping)
        directory = Path(os.environ[envoy.DIRECTORY])
        try:
            await self._run(settings, directory, stopping, receive, send)
        except (ListenError, PolicyError, BadCertificates) as error:
            for line in str(error).splitlines():
                print(f"pointsman-server: {line}", file=sys.stderr)
            await send({"type": "lifespan.startup.failed", "message": "its reason is above"})
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    async def _run(
        self, settings: Settings, directory: Path, stopping: asyncio.Event, receive: Receive, send: Send
    ) -> None:
        """Run the server until the process is told to stop; then drain it, and end Envoy."""
        from pointsman_server.app.application import App, announce

        async with Admin(directory / "admin.sock") as admin:
            async with App(settings) as app:
                app.grpc_server.send_goaway = admin.drain
                self._serve = app.grpc_server.application or self._serve
                await send({"type": "lifespan.startup.complete"})
                # Envoy ends by itself when it cannot listen.
                ended = asyncio.ensure_future(receive())
                ended.add_done_callback(lambda _: stopping.set())
                async with AsyncExitStack() as stack:
                    if secrets := envoy.make_secrets(settings, directory):
                        start_task(stack, "certificates", secrets.watch())
                    port = await _unless(stopping, admin.listening())
                    if port is not None:
                        await app.on_listening(port)
                        announce(app)
                    await stopping.wait()
            if not ended.done():
                await admin.quit()
        await ended
        await send({"type": "lifespan.shutdown.complete"})


async def _unless(stopping: asyncio.Event, work: Coroutine[Any, Any, T]) -> T | None:
    """Return what ``work`` returns, or None when the process is told to stop before."""
    working, stopped = asyncio.ensure_future(work), asyncio.ensure_future(stopping.wait())
    try:
        await asyncio.wait({working, stopped}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()
        stopped.cancel()


def _wait_for_signal(stopping: asyncio.Event) -> None:
    """Set ``stopping`` at the first SIGTERM or SIGINT, which are blocked in every thread of this process."""
    loop = asyncio.get_running_loop()

    def wait() -> None:
        signal.sigwait(envoy.SIGNALS)
        loop.call_soon_threadsafe(stopping.set)

    threading.Thread(target=wait, name="signals", daemon=True).start()


application = Worker()
