"""Calls by grpc-js, the gRPC client of Node.js, each in a process of its own.

``python -m tests.support.grpc_js`` (part of ``make tools``) installs it into ``.cache/grpc-js``, in the versions of
``grpc_js/package-lock.json``.
"""

import base64
import hashlib
import json
import os
import shutil
import subprocess
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from pointsman.v1 import route_service_pb2
from pointsman_server.rpc.descriptors import with_imports
from tests.support import tools
from tests.support.certificates import Authority, Pair

SOURCES = Path(__file__).with_suffix("")
FILES = ("package.json", "package-lock.json", ".npmrc")
INSTALL_SECONDS = 300
PATIENCE_SECONDS = 60
HINT = "npm installs it: make tools"

Value = str | bytes
Metadata = Sequence[tuple[str, Value]]


def _directory() -> Path:
    content = b"".join((SOURCES / name).read_bytes() for name in FILES)
    return tools.CACHE / "grpc-js" / hashlib.sha256(content).hexdigest()[:12]


def modules() -> Path | None:
    """Return the directory of the installed packages; None while they are not installed."""
    found = _directory() / "node_modules"
    return found if found.exists() else None


def provide() -> None:
    """Install the packages where they are missing. Raises CalledProcessError when that fails."""
    directory = _directory()
    if directory.exists():
        return
    draft = directory.with_name(f"{directory.name}.{os.getpid()}")
    draft.mkdir(parents=True)
    for name in FILES:
        shutil.copy(SOURCES / name, draft)
    options = ["--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error"]
    command = [*tools.npm(), "ci", *options]
    subprocess.run(
        command, cwd=draft, check=True, stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, timeout=INSTALL_SECONDS
    )
    draft.rename(directory)


@dataclass(frozen=True)
class Ending:
    """How a call ended. ``error``: ``google.rpc.Status``, its details by the names of their types; None without one."""

    code: str
    text: str
    initial: Mapping[str, Value]
    trailers: Mapping[str, Value]
    error: Any


class JsCall:
    """A call under way."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def message(self) -> Any:
        """Wait for the next message of the response."""
        line = self._line()
        assert "message" in line, line
        return line["message"]

    def end(self) -> Ending:
        """Wait for the end, with no message before it."""
        line = self._line()
        assert "code" in line, line
        return Ending(
            line["code"], line["text"], _unpacked(line["initial"]), _unpacked(line["trailers"]), line["error"]
        )

    def cancel(self) -> None:
        """Cancel it, as the client's program does."""
        assert self._process.stdin
        self._process.stdin.write("cancel\n")
        self._process.stdin.flush()

    def _line(self) -> Any:
        assert self._process.stdout
        line = self._process.stdout.readline()
        assert line, "grpc-js ended without saying how its call did, or took too long"
        return json.loads(line)


@dataclass(frozen=True)
class GrpcJs:
    """A client of one server; by TLS where it trusts an ``authority``."""

    target: str
    authority: Authority | None = None
    pair: Pair | None = None

    @contextmanager
    def start(
        self,
        method: str,
        *requests: Mapping[str, object],
        metadata: Metadata = (),
        seconds: float | None = None,
        gzip: bool = False,
    ) -> Iterator[JsCall]:
        """Call ``package.Service/Method``. ``seconds``: its deadline. ``gzip``: compress the requests."""
        service, _, name = method.rpartition("/")
        asked = {
            "target": self.target,
            "tls": self._tls(),
            "descriptors": base64.b64encode(_descriptors().SerializeToString()).decode(),
            "service": service,
            "method": name,
            "requests": requests,
            "metadata": [(key, _packed(value)) for key, value in metadata],
            "seconds": seconds,
            "gzip": gzip,
            "patience": PATIENCE_SECONDS,
        }
        found = tools.require("grpc-js", modules(), HINT)
        process = subprocess.Popen(
            [str(tools.require("node", tools.program("node"), HINT)), str(SOURCES / "client.js")],
            env=os.environ | {"NODE_PATH": str(found)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        with process:
            assert process.stdin
            try:
                process.stdin.write(json.dumps(asked) + "\n")
                process.stdin.flush()
                yield JsCall(process)
            finally:
                process.kill()

    def call(self, method: str, request: Mapping[str, object], **options: Any) -> tuple[Any, Ending]:
        """Make a unary call that is answered; give the response, and how it ended."""
        with self.start(method, request, **options) as call:
            return call.message(), call.end()

    def fail(self, method: str, request: Mapping[str, object], **options: Any) -> Ending:
        """Make a unary call that gets no response, and give how it ended."""
        with self.start(method, request, **options) as call:
            return call.end()

    def _tls(self) -> dict[str, str | None] | None:
        if self.authority is None:
            return None
        pair = self.pair
        return {
            "ca": self.authority.pem.decode(),
            "key": pair.key.decode() if pair else None,
            "cert": pair.cert.decode() if pair else None,
        }


def _descriptors() -> FileDescriptorSet:
    roots = (route_service_pb2, health_pb2, reflection_pb2, status_pb2, error_details_pb2)
    return FileDescriptorSet(file=with_imports([root.DESCRIPTOR for root in roots]))


def _packed(value: Value) -> str:
    return base64.b64encode(value).decode() if isinstance(value, bytes) else value


def _unpacked(pairs: list[list[str]]) -> dict[str, Value]:
    return {name: base64.b64decode(value) if name.endswith("-bin") else value for name, value in pairs}


if __name__ == "__main__":
    provide()
