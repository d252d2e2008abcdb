"""Runs a child process that ends with this one, however this one ends."""

import os
import signal
import sys
from collections.abc import Sequence

from pointsman_server.embedded import launch


def tied_to_this_process(
    command: Sequence[str], *, death: signal.Signals = signal.SIGKILL, user: str = "-"
) -> list[str]:
    """Return a command line that becomes ``command``, and gets ``death`` when the calling thread ends (Linux).

    ``user`` is who it steps down to, as ``launch`` takes it.
    """
    launcher = [sys.executable, "-I", "-S", launch.__file__, str(os.getpid()), str(int(death)), user]
    return [*launcher, *command]
