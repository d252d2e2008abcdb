"""Stop a process in the middle of what it does."""

import os
import signal
import subprocess


def pause(process: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> None:
    """Send SIGSTOP to a child, and return when all its threads have stopped.

    ``kill`` alone returns before: on a busy machine another thread may still answer a request (wait(2), WUNTRACED).
    """
    process.send_signal(signal.SIGSTOP)
    os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WEXITED | os.WNOWAIT)


def resume(process: "subprocess.Popen[bytes] | subprocess.Popen[str]") -> None:
    """Send SIGCONT."""
    process.send_signal(signal.SIGCONT)
