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
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from starlette.types import Receive, Scope, Send

from pointsman_server.app import envoy
from pointsman_server.app.background import start_task
from pointsman_server.app.listening import bindable, cannot_listen
from pointsman_server.app.preload import preload
from pointsman_server.app.start_errors import FAILED, START_ERRORS, exit_code
from pointsman_server.config.environment import load
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import ServerRole
from pointsman_server.rpc.transport.envoy import goaway
from pointsman_server.rpc.transport.envoy.admin import Admin
from pointsman_server.rpc.transport.envoy.bootstrap import admin_socket
from pointsman_server.runtime.immediate_exit import exit_now
from pointsman_server.telemetry import log_level, logs
from pointsman_server.telemetry.log_level import LogLevel

log = logs.get_logger(__name__)

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
        """Run the server, from the start of the process to its end."""
        asyncio.get_running_loop().set_exception_handler(report)
        await receive()
        settings = load()
        level = LogLevel(settings.log_level, settings.log_format)
        level.begin()
        directory = Path(os.environ[envoy.DIRECTORY])
        try:
            stopping = asyncio.Event()
            _take_signals(stopping.set, level.switch)
            preload(with_kafka=bool(settings.kafka_bootstrap_servers), with_xds=ServerRole.XDS in settings.roles)
            code = await exit_code_of(self._run(settings, directory, stopping, receive, send))
        finally:
            shutil.rmtree(directory, ignore_errors=True)
        # Nothing is left to do. Envoy would wait for every thread, and report an application that has not started.
        exit_now(code)

    async def _run(
        self, settings: Settings, directory: Path, stopping: asyncio.Event, receive: Receive, send: Send
    ) -> None:
        """Run the server until the process is told to stop; then drain it. Raises START_ERRORS."""
        from pointsman_server.app.application import App, announce

        async with Admin(admin_socket(directory)) as admin, App(settings) as app:
            if stopping.is_set():
                return
            bindable(settings)
            app.grpc_server.send_goaway = partial(_send_goaway, admin, directory)
            app.grpc_server.flush = admin.flush
            self._serve = app.grpc_server.application or self._serve
            await send({"type": "lifespan.startup.complete"})
            ended = asyncio.ensure_future(receive())
            port = await _unless(ended, admin.listening())
            if port is None:
                raise cannot_listen(settings)
            async with AsyncExitStack() as stack:
                if secrets := envoy.make_secrets(settings, directory):
                    start_task(stack, "certificates", secrets.watch())
                await app.on_listening(port)
                announce(app)
                await _unless(ended, stopping.wait())


async def _send_goaway(admin: Admin, directory: Path) -> None:
    """Send GOAWAY with each response, and to each connection on which anything else arrives."""
    goaway.ask(directory)
    await admin.drain()
    # Calls that are on their way are still answered until then.
    await asyncio.sleep(goaway.IN_FORCE_SECONDS)


def report(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Report an error of the event loop, unless it is only that an event came for a call that has ended.

    pyvoy sets the result of the future that ``receive`` returned even if that was cancelled.
    """
    is_late = isinstance(context.get("exception"), asyncio.InvalidStateError) and "_pyvoy." in str(context["message"])
    if not is_late:
        loop.default_exception_handler(context)


async def exit_code_of(work: Coroutine[Any, Any, None]) -> int:
    """Do ``work``; say why it could not be done, and return the exit code."""
    try:
        await work
    except START_ERRORS as error:
        for line in str(error).splitlines():
            print(f"pointsman-server: {line}", file=sys.stderr)
        return exit_code(error)
    except Exception:
        log.exception("the server failed")
        return FAILED
    return 0


async def _unless(ended: asyncio.Future[Any], work: Coroutine[Any, Any, T]) -> T | None:
    """Return what ``work`` returns, or None when ``ended`` is done before."""
    working = asyncio.ensure_future(work)
    try:
        await asyncio.wait({working, ended}, return_when=asyncio.FIRST_COMPLETED)
        return working.result() if working.done() else None
    finally:
        working.cancel()


def _take_signals(stop: Callable[[], None], switch_log_level: Callable[[], None]) -> None:
    """Do what each signal asks for; those of ``envoy.SIGNALS`` are blocked in every thread of this process."""
    loop = asyncio.get_running_loop()

    def wait() -> None:
        while signal.sigwait(envoy.SIGNALS) == log_level.SIGNAL:
            loop.call_soon_threadsafe(switch_log_level)
        loop.call_soon_threadsafe(stop)

    threading.Thread(target=wait, name="signals", daemon=True).start()


application = Worker()
