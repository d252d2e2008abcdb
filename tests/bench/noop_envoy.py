"""The floor of the Envoy door: an ASGI application that answers each call the same, in Envoy as we configure it."""

import os
import tempfile
from pathlib import Path

from starlette.types import Receive, Scope, Send

from pointsman_server.app import envoy, listening
from pointsman_server.config.environment import load
from pointsman_server.rpc.transport.asgi.framing import frame
from pointsman_server.rpc.transport.asgi.responses import OK_TRAILERS, START
from pointsman_server.rpc.transport.envoy import process
from pointsman_server.rpc.transport.envoy.admin import Admin
from pointsman_server.rpc.transport.envoy.bootstrap import admin_socket
from tests.bench import noop

ROOT = Path(__file__).resolve().parents[2]
BODY = {"type": "http.response.body", "body": frame(noop.answer().SerializeToString())}


def become() -> None:
    """Turn this process into Envoy with ``application`` in it, configured by the settings in the environment."""
    settings = load(os.environ | {"POINTSMAN_LISTEN": "127.0.0.1:0"})
    installation = process.Installation.find()
    directory = Path(tempfile.mkdtemp(prefix="pointsman-floor-"))
    addresses = listening.bindable(settings)
    door = envoy.make_door(settings, installation, directory, "tests.bench.noop_envoy:application", addresses)
    command = process.command(installation, envoy.write(door), log_level="error")
    environ = os.environ | process.environment(installation) | {envoy.DIRECTORY: str(directory)}
    environ["PYTHONPATH"] = f"{ROOT}{os.pathsep}{environ['PYTHONPATH']}"
    os.execve(command[0], command, environ)  # noqa: S606 - becoming Envoy is the point


async def application(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer one call, whatever it asks for."""
    if scope["type"] == "lifespan":
        await _live(receive, send)
        return
    await receive()
    await send(START)
    await send(BODY)
    await send(OK_TRAILERS)


async def _live(receive: Receive, send: Send) -> None:
    await receive()
    await send({"type": "lifespan.startup.complete"})
    async with Admin(admin_socket(Path(os.environ[envoy.DIRECTORY]))) as admin:
        noop.say_port(await admin.listening())
        await receive()
    await send({"type": "lifespan.shutdown.complete"})
