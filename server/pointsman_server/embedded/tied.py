"""Runs a child process that ends with this one, SIGKILL included."""

import os
import signal
import sys
from collections.abc import Sequence

from pointsman_server.embedded import launch


def tied_to_this_process(command: Sequence[str]) -> list[str]:
    """Return a command line that becomes ``command``, and is killed when the calling thread ends (Linux)."""
    launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(signal.SIGKILL)), "-"]
    return [*launcher, *command]
