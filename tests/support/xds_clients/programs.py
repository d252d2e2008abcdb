"""The programs of the probes: grpcio and Envoy come with ``.venv``, those in Go and Node.js are built into ``.cache``.

``python -m tests.support.xds_clients.programs`` (part of ``make tools``) builds what is missing.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

from tests.support import tools

SOURCES = Path(__file__).parent
GO_FILES = ("main.go", "go.mod", "go.sum")
NODE_FILES = ("package.json", "package-lock.json", ".npmrc")
NPM_OPTIONS = ("--ignore-scripts", "--no-audit", "--no-fund", "--prefer-offline", "--loglevel=error")
BUILD_SECONDS = 900
HINT = "run `make tools`"


def python_probe() -> list[str]:
    """Return the command of the probe that calls by grpcio."""
    return [sys.executable, str(SOURCES / "probe.py")]


def backend() -> list[str]:
    """Return the command of the backends."""
    return [sys.executable, str(SOURCES / "backend.py")]


def envoy() -> list[str]:
    """Return the command of Envoy. Skips the test where its wheel is not installed."""
    path = Path(sys.executable).with_name("envoy")
    return [str(tools.require("envoy", path if path.exists() else None, "run `make setup`"))]


def go_probe() -> list[str]:
    """Return the command of the probe that calls by grpc-go. Skips the test where it is not built."""
    path = _go()
    return [str(tools.require("the xDS probe in Go", path if path.exists() else None, HINT))]


def node_probe() -> tuple[list[str], dict[str, str]]:
    """Return the command of the probe that calls by grpc-js, and its environment. Skips where it is not installed."""
    modules = _node() / "node_modules"
    found = tools.require("grpc-js-xds", modules if modules.exists() else None, HINT)
    node = tools.require("node", tools.program("node"), HINT)
    return [str(node), str(SOURCES / "node" / "probe.js")], {"NODE_PATH": str(found)}


def missing() -> str:
    """Return what is to be done before clients of every kind can run; empty when nothing is."""
    return "" if _go().exists() and _node().exists() and tools.program("node") else HINT


def _go() -> Path:
    """Return where the program in Go is, or is going to be: another place for each version of its sources."""
    return tools.CACHE / "xds-clients" / f"go-{_digest('go', GO_FILES)}"


def _node() -> Path:
    return tools.CACHE / "xds-clients" / f"node-{_digest('node', NODE_FILES)}"


def _digest(folder: str, names: tuple[str, ...]) -> str:
    content = b"".join((SOURCES / folder / name).read_bytes() for name in names)
    return hashlib.sha256(content).hexdigest()[:12]


def build() -> None:
    """Build what is missing. Raises CalledProcessError when that fails."""
    if not (built := _go()).exists():
        draft = built.with_name(f"{built.name}.{os.getpid()}")
        draft.parent.mkdir(parents=True, exist_ok=True)
        go = str(tools.provide("go"))
        _run([go, "build", "-buildvcs=false", "-o", str(draft), "."], SOURCES / "go", {"CGO_ENABLED": "0"})
        draft.rename(built)
    if not (built := _node()).exists():
        draft = built.with_name(f"{built.name}.{os.getpid()}")
        draft.mkdir(parents=True)
        for name in NODE_FILES:
            shutil.copy(SOURCES / "node" / name, draft)
        _run([*tools.npm(), "ci", *NPM_OPTIONS], draft, {})
        draft.rename(built)


def _run(command: list[str], directory: Path, environ: dict[str, str]) -> None:
    subprocess.run(
        command,
        cwd=directory,
        env=os.environ | environ,
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        timeout=BUILD_SECONDS,
    )


if __name__ == "__main__":
    build()
