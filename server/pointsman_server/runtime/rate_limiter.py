"""Rate limits, by the generic cell rate algorithm.

GCRA (ITU-T I.371, ATM Forum TM 4.0) keeps one number for each subject: the *theoretical arrival time*, when the
subject would have used up what it took at exactly its rate. A call that would move it more than ``window`` seconds
ahead of the clock does not conform, and how far beyond is exactly how long to wait.
"""

import asyncio
import time
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from pointsman_server.domain.access_errors import RateLimited

# Per limiter.
SUBJECTS = 16_384


class Rate:
    """``per_second`` in the long run, and ``burst_seconds`` of it at once; one call always fits.

    In whole nanoseconds, so that a burst of n is n: fractions of seconds add up to a little more or less.
    """

    def __init__(self, per_second: float, burst_seconds: float) -> None:
        self.interval = max(1, int(1e9 / per_second))
        self.window = max(int(burst_seconds * 1e9), self.interval)

    def arrival(self, before: int, now: int, cost: int = 1) -> int:
        """Return the arrival time of a subject that takes ``cost`` calls ``now``, and had that of ``before``."""
        return max(now, before) + (self.interval if cost == 1 else self.debt(cost))

    def debt(self, cost: int) -> int:
        """Return the nanoseconds that ``cost`` calls use up: at most the window, so that any call can pass."""
        return min(self.interval * cost, self.window)


class Limiter:
    """One limit on many subjects, in this process. ``name`` is in the error; ``now`` is in nanoseconds.

    Everything is O(1), and the table is bounded. A subject whose arrival time has passed has its whole burst again, and
    is dropped. When more than ``size`` subjects came within one window, the one that was quiet for longest is dropped:
    a caller that can use so many names gains nothing by it, because each name has a burst of its own.
    """

    def __init__(
        self, name: str, rate: Rate, *, size: int = SUBJECTS, now: Callable[[], int] = time.monotonic_ns
    ) -> None:
        self.name = name
        self.rate = rate
        self._size = size
        self._now = now
        self._arrivals: OrderedDict[str, int] = OrderedDict()

    @property
    def subjects(self) -> int:
        """The number of subjects in the table."""
        return len(self._arrivals)

    def take(self, subject: str, cost: int = 1) -> None:
        """Count a call that costs ``cost``. Raises RateLimited, which counts nothing."""
        now = self._now()
        arrival = self.rate.arrival(self._arrivals.get(subject, now), now, cost)
        excess = arrival - now - self.rate.window
        if excess > 0:
            raise RateLimited(self.name, excess / 1e9)
        arrivals = self._arrivals
        arrivals[subject] = arrival
        if len(arrivals) > 1:
            arrivals.move_to_end(subject)
            self._forget(now)

    def give_back(self, subject: str, cost: int = 1) -> None:
        """Undo a ``take`` of ``cost``, unless the subject was dropped since."""
        arrival = self._arrivals.get(subject)
        if arrival is not None:
            self._arrivals[subject] = arrival - self.rate.debt(cost)

    def take_all(self, costs: Mapping[str, int]) -> None:
        """Count a call for several subjects by their costs: for all, or if one is over its limit, for none.

        Raises RateLimited.
        """
        now = self._now()
        arrival, before = self.rate.arrival, self._arrivals.get
        last = max((arrival(before(subject, now), now, cost) for subject, cost in costs.items()), default=now)
        excess = last - now - self.rate.window
        if excess > 0:
            raise RateLimited(self.name, excess / 1e9)
        for subject, cost in costs.items():
            self.take(subject, cost)

    def _forget(self, now: int) -> None:
        # Two at most: the table shrinks faster than it grows, and no call pays for many.
        arrivals = self._arrivals
        for _ in range(2):
            subject = next(iter(arrivals))
            if arrivals[subject] > now and len(arrivals) <= self._size:
                return
            del arrivals[subject]


class Pace:
    """One limit on one subject that waits where a ``Limiter`` would refuse it. ``now`` is in nanoseconds."""

    __slots__ = ("_arrival", "_now", "_rate")

    def __init__(self, rate: Rate, *, now: Callable[[], int] = time.monotonic_ns) -> None:
        self._rate = rate
        self._now = now
        self._arrival = 0

    async def take(self, cost: int = 1) -> None:
        """Count a call that costs ``cost``, and wait until it conforms."""
        now = self._now()
        self._arrival = self._rate.arrival(self._arrival, now, cost)
        excess = self._arrival - now - self._rate.window
        if excess > 0:
            await asyncio.sleep(excess / 1e9)


@dataclass(frozen=True, slots=True)
class Limits:
    """The limiters of reads, or of writes: by identity of the caller, and by tenant of the routes. None: no limit."""

    identity: Limiter | None = None
    tenant: Limiter | None = None

    def __bool__(self) -> bool:
        return bool(self.identity or self.tenant)

    @classmethod
    def make(cls, kind: str, *, identity: float, tenant: float, burst_seconds: float) -> "Limits":
        """Make them for ``kind``, "reads" or "writes", from rates per second; 0 is no limit."""

        def limiter(scope: str, per_second: float) -> Limiter | None:
            return Limiter(f"{scope}.{kind}", Rate(per_second, burst_seconds)) if per_second else None

        return cls(limiter("identity", identity), limiter("tenant", tenant))
