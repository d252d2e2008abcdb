"""How many bad credentials one host may show: each costs a check of a signature, so a flood of them is not checked.

GCRA, the leaky bucket as a meter (ITU-T I.371): one number per host, the time at which its failures are worked off.
"""

import time
from collections.abc import Callable

MOST_PEERS = 10_000


class FailureLimit:
    """Failures per peer: ``rate`` a second, and a burst of as many."""

    def __init__(self, rate: float, *, most_peers: int = MOST_PEERS, now: Callable[[], float] = time.monotonic) -> None:
        self._interval = 1 / rate
        # One whole failure must fit below the bound, or the first would be refused at once and for ever.
        self._burst = max(1.0, self._interval)
        self._most = most_peers
        self._now = now
        self._worked_off: dict[str, float] = {}

    def allowed(self, peer: str) -> bool:
        """Say whether a credential of ``peer`` is checked."""
        worked_off = self._worked_off.get(peer)
        # Half a failure of tolerance: sums of fractions are not exact.
        return worked_off is None or worked_off - self._now() <= self._burst - self._interval / 2

    def failed(self, peer: str) -> None:
        """Take note of a credential of ``peer`` that was refused."""
        now = self._now()
        # Taken out and put in again: the table is in the order of the last failures.
        worked_off = max(self._worked_off.pop(peer, now), now) + self._interval
        if len(self._worked_off) >= self._most:
            self._worked_off.pop(next(iter(self._worked_off)))
        self._worked_off[peer] = worked_off
