"""Real clients that others wrote: grpcurl and grpc-health-probe, in the versions of ``go-tools.txt``.

``python -m tests.support.tools`` (``make tools``) builds what is missing. A test says what it needs with ``require``.
"""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import TypeVar

import pytest

BIN = Path(__file__).resolve().parents[2] / ".cache" / "bin"
MODULES = Path(__file__).with_name("go-tools.txt").read_text().split()
BUILD_SECONDS = 900

Needed = TypeVar("Needed")


def tool(name: str) -> Path | None:
    """Find a tool: the one that was built here, or else any on PATH."""
    found = shutil.which(name, path=BIN) or shutil.which(name)
    return Path(found) if found else None


def require(name: str, available: Needed | None, hint: str = "") -> Needed:
    """Give ``available`` back, or skip the test aloud when it is missing or false.

    With POINTSMAN_REQUIRE_ALL=1 the test fails instead: where everything should be there, nothing is skipped unseen.
    """
    if available:
        return available
    message = f"{name} is missing" + (f": {hint}" if hint else "")
    if os.environ.get("POINTSMAN_REQUIRE_ALL") == "1":
        pytest.fail(message)
    pytest.skip(message)


def build(module: str) -> str | None:
    """Build one tool unless it is there in this version; say what went wrong."""
    stamp = BIN / f".{module.replace('/', '_')}"
    if stamp.exists():
        return None
    environment = os.environ | {"GOBIN": str(BIN), "GOFLAGS": ""}
    done = subprocess.run(
        ["go", "install", module], env=environment, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False
    )
    if done.returncode != 0:
        return f"{module} is not built: {done.stderr.strip()}"
    stamp.touch()
    return None


def main() -> int:
    """Build all tools, and say which could not be built. Without Go that is no failure: tests will skip, or fail."""
    if shutil.which("go") is None:
        sys.stderr.write(f"no go on PATH: not building {' '.join(MODULES)}\n")
        return 0
    BIN.mkdir(parents=True, exist_ok=True)
    problems = [problem for module in MODULES if (problem := build(module))]
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
