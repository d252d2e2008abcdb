"""Loads under way: which may still be joined, and whose results may still be cached."""

import asyncio

from pointsman_server.domain.routes import RouteKey
from pointsman_server.reads.answer import Answer
from pointsman_server.runtime.batcher import settle
from pointsman_server.telemetry.tracing.spans import Span


class InFlightLoad:
    """A load of a key that began at ``begun`` for the call of ``span``, and the waiters that get its result.

    Each waiter has a future of its own, because any of them may be cancelled.
    """

    __slots__ = ("_waiters", "begun", "key", "span")

    def __init__(self, key: RouteKey, begun: float, span: Span | None = None) -> None:
        self.key = key
        self.begun = begun
        self.span = span
        self._waiters: list[asyncio.Future[Answer]] = []

    def result(self) -> asyncio.Future[Answer]:
        """Add a waiter; return its future."""
        waiter: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiters.append(waiter)
        return waiter

    def end(self, outcome: Answer | BaseException) -> None:
        """Give the outcome to the waiters."""
        for waiter in self._waiters:
            settle(waiter, outcome)


class Reservation:
    """Reservation to cache the result of a read that begins at ``read_at``; revoked when the key is written."""

    __slots__ = ("key", "read_at")

    def __init__(self, key: RouteKey, read_at: float) -> None:
        self.key = key
        self.read_at = read_at


class Reservations:
    """The reservations that are in force, by key."""

    def __init__(self) -> None:
        self._of_keys: dict[RouteKey, set[Reservation]] = {}

    def __len__(self) -> int:
        return sum(map(len, self._of_keys.values()))

    def __contains__(self, reservation: Reservation) -> bool:
        return reservation in self._of_keys.get(reservation.key, ())

    def reserve(self, key: RouteKey, read_at: float) -> Reservation:
        reservation = Reservation(key, read_at)
        self._of_keys.setdefault(key, set()).add(reservation)
        return reservation

    def release(self, reservation: Reservation) -> None:
        """End a reservation, whether or not it was revoked."""
        of_key = self._of_keys.get(reservation.key)
        if of_key is not None:
            of_key.discard(reservation)
            if not of_key:
                del self._of_keys[reservation.key]

    def revoke(self, key: RouteKey) -> None:
        """Revoke every reservation of a key."""
        self._of_keys.pop(key, None)

    def revoke_all(self) -> None:
        self._of_keys.clear()
