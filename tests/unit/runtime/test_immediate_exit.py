"""runtime.immediate_exit: the process ends although a thread is stuck, and what was printed is there."""

import subprocess
import sys


def test_a_stuck_thread_does_not_keep_the_process() -> None:
    code = (
        "import threading; from pointsman_server.runtime.immediate_exit import exit_now;"
        "threading.Thread(target=threading.Event().wait).start(); print('said'); exit_now(3)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=60, check=False)

    assert (done.returncode, done.stdout) == (3, b"said\n")
