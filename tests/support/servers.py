"""A whole server in this process, on a loop of its own, for tests that call it from outside."""

import asyncio
import threading
from collections.abc import Coroutine, Iterator
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

from pointsman_server.app.application import App
from pointsman_server.config.environment import merge
from pointsman_server.config.settings import Settings
from tests.support.envoy import envoy_before

T = TypeVar("T")
PATIENCE_SECONDS = 30.0
EVERYBODY = Path(__file__).with_name("everybody.toml")
"""A policy that grants every caller everything."""


@dataclass(frozen=True)
class RunningServer:
    """A server that is up: its parts, and where it listens."""

    app: App
    loop: asyncio.AbstractEventLoop

    @property
    def address(self) -> str:
        """Where gRPC listens."""
        return f"127.0.0.1:{self.app.grpc_server.port}"

    @property
    def xds(self) -> str:
        """Where the role xds listens."""
        assert self.app.xds, "the server has no role xds"
        return f"127.0.0.1:{self.app.xds.port}"

    @property
    def http(self) -> str:
        """Where operations listen."""
        return f"http://127.0.0.1:{self.app.http_port}"

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run ``work`` on the loop of the server."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(PATIENCE_SECONDS)


def settings(**values: object) -> Settings:
    """Make settings for tests: ephemeral ports, the API alone, and patience with a slow machine."""
    defaults: dict[str, object] = {
        "transport": "grpcio",
        "listen": "127.0.0.1:0",
        "http_listen": "127.0.0.1:0",
        "xds_listen": "127.0.0.1:0",
        "roles": "api",
        "redis_timeout_seconds": 5,
        "drain_seconds": 5,
    }
    return merge({"flag": defaults | values})


@contextmanager
def serving(chosen: Settings) -> Iterator[RunningServer]:
    """Run a server until the block ends, then drain it."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, name="server", daemon=True)
    thread.start()
    try:
        app = App(chosen)
        running = RunningServer(app, loop)
        stack = AsyncExitStack()
        try:
            running.run(_start(app, stack))
            yield running
        finally:
            running.run(stack.aclose())
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join(PATIENCE_SECONDS)
        loop.close()


async def _start(app: App, stack: AsyncExitStack) -> None:
    """Enter the application, with Envoy before it where the transport is Envoy."""
    await app.__aenter__()
    try:
        if served := app.grpc_server.application:
            port, admin, disconnect = await stack.enter_async_context(envoy_before(served, app.settings))
            app.grpc_server.send_goaway = admin.drain
            app.grpc_server.flush = admin.flush
            app.grpc_server.disconnect = disconnect
            await app.on_listening(port)
    finally:
        # Left first: Envoy serves the calls that are still open.
        stack.push_async_exit(app)
