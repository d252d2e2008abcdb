"""A circuit breaker."""

import time
from collections.abc import Callable


class Breaker:
    """Opens after ``threshold`` failures in a row, and lets one attempt through every ``pause`` seconds.

    The states are those of Nygard's "Release It!": closed, open, half-open.
    """

    def __init__(self, *, threshold: int = 5, pause: float = 1.0, now: Callable[[], float] = time.monotonic) -> None:
        self._threshold = threshold
        self._pause = pause
        self._now = now
        self._failures = 0
        self._next_attempt = 0.0

    @property
    def is_open(self) -> bool:
        return self._failures >= self._threshold

    def allows(self) -> bool:
        """Say whether to try now; when open, True is returned once per pause."""
        if not self.is_open:
            return True
        if self._now() < self._next_attempt:
            return False
        self._next_attempt = self._now() + self._pause
        return True

    def succeeded(self) -> None:
        self._failures = 0

    def failed(self) -> None:
        self._failures += 1
        self._next_attempt = self._now() + self._pause
