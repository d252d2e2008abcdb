"""The no-op of grpc-go, built by Go: what a gRPC server in a compiled language answers with nothing to do."""

import hashlib
import os
import re
import subprocess
from pathlib import Path

from tests.support import tools

SOURCE = Path(__file__).with_name("grpc_go")
BUILD_SECONDS = 600


def version() -> str:
    """Return the version of grpc-go."""
    found = re.search(r"google\.golang\.org/grpc v(\S+)", (SOURCE / "go.mod").read_text())
    return found[1] if found else "unknown"


def program() -> Path:
    """Return where the program is, or is going to be: another place for each version of its source."""
    text = b"".join((SOURCE / name).read_bytes() for name in ("main.go", "go.mod", "go.sum"))
    return tools.CACHE / "bench" / f"grpc-go-{hashlib.sha256(text).hexdigest()[:12]}"


def build() -> str:
    """Build it where it is missing. Returns the problem; empty when it is built."""
    built = program()
    if built.exists():
        return ""
    built.parent.mkdir(parents=True, exist_ok=True)
    draft = built.with_suffix(f".{os.getpid()}")
    try:
        command = [str(tools.provide("go")), "build", "-o", str(draft), "."]
        done = subprocess.run(command, cwd=SOURCE, capture_output=True, text=True, timeout=BUILD_SECONDS, check=False)
    except (subprocess.SubprocessError, OSError) as error:
        return f"the no-op of grpc-go is not built: {error}"
    if done.returncode != 0:
        return f"the no-op of grpc-go is not built: {done.stderr.strip()[-300:]}"
    draft.rename(built)
    return ""
