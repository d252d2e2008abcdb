"""What both clients share around a call: its deadline, its credentials, and the memory of one's own writes."""

import math
import threading
import time
from collections.abc import Callable
from typing import TypeVar

from pointsman.operations import Operation

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")

Token = str | Callable[[], str]

DEFAULT_TIMEOUT = 5.0
"""Seconds."""


class OwnWrites:
    """The highest revision that any write of this client returned. Safe to use from several threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._revision = 0

    @property
    def revision(self) -> int:
        """The highest revision so far; 0 before the first write."""
        return self._revision

    def saw(self, revision: int) -> None:
        """Remember ``revision`` if it is the highest."""
        with self._lock:
            self._revision = max(self._revision, revision)

    def forget(self) -> None:
        """Start again from 0."""
        with self._lock:
            self._revision = 0


class Session:
    """The defaults of every call of one client, and what the client has learned from the answers."""

    def __init__(self, timeout: float, token: Token | None) -> None:
        self._timeout = _checked(timeout)
        self._token = token
        self.own_writes = OwnWrites()

    def timeout(self, timeout: float | None) -> float:
        """Return the seconds that a call may take. Raises ValueError unless they are positive and finite."""
        return self._timeout if timeout is None else _checked(timeout)

    def countdown(self, timeout: float | None) -> Callable[[], float]:
        """Return a function that says how many seconds are left, for a result that takes several calls."""
        end = time.monotonic() + self.timeout(timeout)
        return lambda: max(end - time.monotonic(), 0.001)

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """Return the metadata of a call: the bearer token, asked for anew each time so that it can rotate."""
        if self._token is None:
            return ()
        token = self._token() if callable(self._token) else self._token
        return (("authorization", f"Bearer {token}"),)

    def min_revision(self, explicit: int | None) -> int:
        """Return the revision that a read must have reached: the explicit one, or that of one's own writes."""
        return self.own_writes.revision if explicit is None else explicit

    def accept(self, operation: Operation[Request, Response, Result], response: Response) -> Result:
        """Remember what a write says, and return the result."""
        if operation.written is not None:
            self.own_writes.saw(operation.written(response))
        return operation.read(response)


def _checked(timeout: float) -> float:
    if not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout}")
    return timeout
