"""The thread of a channel that closes backends: none while there is nothing to close.

A gRPC channel is never closed in a callback of one of its calls: that may wait for the thread that is calling back.
"""

import logging
import threading
from collections.abc import Callable

RETRY_SECONDS = 1.0

_LOG = logging.getLogger(__name__)


class Reaper:
    """Calls ``work`` in a thread of its own: after ``wake``, and again after as many seconds as it returns.

    When it returns None, the thread ends.
    """

    def __init__(self, work: Callable[[], float | None]) -> None:
        self._work = work
        self._working = threading.Lock()
        """Held while ``work`` runs."""
        self._condition = threading.Condition(threading.Lock())
        self._woken = False
        self._stopped = False
        self._thread: threading.Thread | None = None

    def wake(self) -> None:
        """Let ``work`` be called soon. It does not wait."""
        with self._condition:
            self._woken = True
            if self._stopped:
                return
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name="pointsman-channel", daemon=True)
                self._thread.start()
            else:
                self._condition.notify()

    def stop(self, seconds: float) -> None:
        """End the thread, and wait for that for so long at most."""
        with self._condition:
            self._stopped = True
            thread = self._thread
            self._condition.notify()
        if thread is not None and thread is not threading.current_thread():
            thread.join(seconds)

    def before_fork(self) -> None:
        """Wait until ``work`` is done; it is not called until after the fork."""
        self._working.acquire()

    def hold(self) -> None:
        """Hold what ``wake`` holds, until after the fork. Take it last: ``wake`` is called under other locks."""
        self._condition.acquire()

    def after_fork_in_parent(self) -> None:
        """Go on."""
        self._condition.release()
        self._working.release()

    def after_fork_in_child(self) -> None:
        """Be without a thread."""
        self._working = threading.Lock()
        self._condition = threading.Condition(threading.Lock())
        self._woken, self._thread = False, None

    def _run(self) -> None:
        while self._goes_on():
            pause = self._work_once()
            with self._condition:
                if self._woken:
                    continue
                if pause is None:
                    self._thread = None
                    return
                self._condition.wait(pause)

    def _goes_on(self) -> bool:
        with self._condition:
            self._woken = False
            if self._stopped:
                self._thread = None
            return not self._stopped

    def _work_once(self) -> float | None:
        with self._working:
            try:
                return self._work()
            except Exception:  # noqa: BLE001 - a thread that ends for good would close nothing any more
                _LOG.exception("backends of a channel could not be closed; it is tried again")
                return RETRY_SECONDS
