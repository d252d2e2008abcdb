"""What the brokers refuse to the clients of this process, for the health check."""

import math
import threading
import time
from collections.abc import Callable

# A client that is refused tries again every few seconds; one that has stopped trying is forgotten.
KEEP_SECONDS = 15.0


class Refusals:
    """The last refusal of each client, by what it is about; safe across threads."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._lock = threading.Lock()
        self._told: dict[str, tuple[float, str]] = {}

    def tell(self, what: str, problem: str, *, keep: bool = False) -> None:
        """Keep ``problem`` until ``clear``; or, without ``keep``, until it was not told again for KEEP_SECONDS."""
        with self._lock:
            self._told[what] = (math.inf if keep else self._clock(), problem)

    def clear(self, what: str) -> None:
        """Forget it: the brokers allow it now."""
        with self._lock:
            self._told.pop(what, None)

    def current(self) -> list[str]:
        """Return the problems, each once."""
        oldest = self._clock() - KEEP_SECONDS
        with self._lock:
            self._told = {what: told for what, told in self._told.items() if told[0] >= oldest}
            return list(dict.fromkeys(problem for _, problem in self._told.values()))
