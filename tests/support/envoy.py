"""A real Envoy in front of an application that runs in the process of a test."""

import os
import subprocess
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from starlette.types import ASGIApp

from pointsman_server.app import envoy
from pointsman_server.app.background import start_task
from pointsman_server.app.listening import bindable
from pointsman_server.config.settings import Settings
from pointsman_server.embedded.tied import tied_to_this_process
from pointsman_server.rpc.transport.envoy import process
from pointsman_server.rpc.transport.envoy.admin import Admin
from tests.support import asgi_bridge

ROOT = Path(__file__).resolve().parents[2]
APPLICATION = "tests.support.asgi_bridge:application"


@asynccontextmanager
async def envoy_before(served: ASGIApp, settings: Settings) -> AsyncIterator[tuple[int, Admin, Callable[[str], bool]]]:
    """Run Envoy, configured by the settings; give its port, its administration, and its ``disconnect``."""
    installation = process.Installation.find()
    with tempfile.TemporaryDirectory(prefix="pointsman-envoy-") as created:
        directory = Path(created)
        door = envoy.make_door(settings, installation, directory, APPLICATION, bindable(settings))
        socket = directory / "bridge.sock"
        environ = os.environ | process.environment(installation) | {asgi_bridge.SOCKET: str(socket)}
        environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{environ['PYTHONPATH']}"
        command = process.command(installation, envoy.write(door), log_level="warning")
        async with (
            asgi_bridge.serve(served, socket) as disconnect,
            Admin(door.admin_socket) as admin,
            AsyncExitStack() as stack,
        ):
            if secrets := envoy.make_secrets(settings, directory):
                start_task(stack, "certificates", secrets.watch())
            running = subprocess.Popen(tied_to_this_process(command), env=environ)  # noqa: ASYNC220 - starts at once
            try:
                yield await admin.listening(), admin, disconnect
            finally:
                running.terminate()
                running.wait()
