"""What both clients share around a call: its deadline, its credentials, and the memory of what was seen."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol, TypeVar

from pointsman.connection.bearer import Bearer
from pointsman.errors import PointsmanError
from pointsman.keys import RouteKey
from pointsman.memory import DEFAULT_KEYS, Floor, Memory, Sighting
from pointsman.results import BatchResult
from pointsman.rpc.convert import key_of
from pointsman.rpc.operations import Operation, absence, all_resolved

Request = TypeVar("Request")
Response = TypeVar("Response")
Result = TypeVar("Result")

DEFAULT_TIMEOUT = 5.0
"""Seconds."""
NO_TIME = 0.001
"""Seconds."""


class NearCacheMemory(Protocol):
    """A near-cache of the client, as the session sees it: what one of them shows, the other one must not go back of."""

    def floor(self, key: RouteKey) -> Floor: ...

    def saw(self, key: str, revision: int, epoch: str) -> None: ...

    def wrote(self, keys: Sequence[RouteKey], revision: int, *, siblings: bool) -> None: ...

    def shut_down(self) -> None: ...


class Session:
    """The defaults of every call of one client, and what the client has learned from the answers."""

    def __init__(self, timeout: float, bearer: Bearer, max_attempts: int, remembered_keys: int = DEFAULT_KEYS) -> None:
        self._timeout = _checked(timeout)
        self.bearer = bearer
        self.max_attempts = max_attempts
        self.memory = Memory(remembered_keys)
        self.near_caches: tuple[NearCacheMemory, ...] = ()

    def countdown(self, timeout: float | None) -> Callable[[], float]:
        """Return a function that says how many seconds are left, for what takes several attempts or calls.

        Never fewer than ``NO_TIME``: gRPC takes a deadline that is over, but no timeout below zero.
        Raises ValueError unless ``timeout`` is positive and finite; None means that of the client.
        """
        end = time.monotonic() + (self._timeout if timeout is None else _checked(timeout))
        return lambda: max(end - time.monotonic(), NO_TIME)

    def floor(self, key: RouteKey, min_revision: int | None, epoch: str) -> Floor:
        """Return what a resolve of ``key`` must have reached: what the caller says, or all that was seen and written.

        Raises ValueError for an epoch without a revision.
        """
        return _explicit(min_revision, epoch) or self._floor(key, self.memory.floor(str(key)))

    def floor_of_all(self, min_revision: int | None, epoch: str) -> Floor:
        """Return what every answer of a batch must have reached. What was seen of each key is looked at in ``again``.

        The highest of them would be a floor for all keys, and make the server pass by caches that are good enough.
        """
        return _explicit(min_revision, epoch) or self.memory.floor()

    def again(self, results: Iterable[BatchResult], min_revision: int | None) -> tuple[list[RouteKey], Floor]:
        """Return the keys of a batch whose answers are older than what was seen of them, and what to ask for.

        Usually there are none. A ``min_revision`` of the caller is used as it is.
        """
        behind: dict[str, Floor] = {}
        if min_revision is None:
            sightings = all_resolved(results)
            behind = self.memory.behind(sightings) | self._behind_near_caches(sightings)
        return [RouteKey.parse(key) for key in behind], max(behind.values(), default=Floor())

    def accepted(
        self, operation: Operation[Request, Response, Result], request: Request, response: Response, began: str
    ) -> Result:
        """Remember what an answer tells, and return its result; ``began`` is the epoch when the call began."""
        if operation.written is not None:
            revision = operation.written(response)
            self.memory.wrote(revision, began)
            self._tell_written(request, revision)
        result = operation.read(response)
        if operation.shown is not None:
            self._saw(operation.shown(result), _asked(request), began)
        return result

    def refused(
        self, operation: Operation[Request, Response, Result], request: Request, error: PointsmanError, began: str
    ) -> PointsmanError:
        """Remember what an error tells, and return it."""
        if operation.shown is not None:
            self._saw(absence(error), _asked(request), began)
        return error

    def _saw(self, sightings: Iterable[Sighting], asked: Floor, began: str) -> None:
        seen = list(sightings)
        self.memory.saw(seen, asked, began)
        for cache in self.near_caches:
            for sighting in seen:
                cache.saw(sighting.key, sighting.revision, sighting.epoch)

    def _tell_written(self, request: object, revision: int) -> None:
        if self.near_caches:
            keys = [key_of(each.key) for each in getattr(request, "routes", [request])]
            for cache in self.near_caches:
                cache.wrote(keys, revision, siblings=getattr(request, "exclusive", False))

    def _floor(self, key: RouteKey, floor: Floor) -> Floor:
        for cache in self.near_caches:
            shown = cache.floor(key)
            if shown.revision > floor.revision and floor.epoch in {"", shown.epoch}:
                floor = shown
        return floor

    def _behind_near_caches(self, sightings: Iterable[Sighting]) -> dict[str, Floor]:
        if not self.near_caches:
            return {}
        floors = ((each, self._floor(RouteKey.parse(each.key), Floor(each.as_of, each.epoch))) for each in sightings)
        return {each.key: floor for each, floor in floors if floor.revision > each.as_of}


def left_out(results: Iterable[BatchResult]) -> list[RouteKey]:
    """Return the keys whose answers did not fit into the response of a batch: they need another call."""
    return [result.key for result in results if result.error and result.error.reason == "RESPONSE_TOO_LARGE"]


def newer(results: tuple[BatchResult, ...], again: tuple[BatchResult, ...]) -> tuple[BatchResult, ...]:
    """Return the results of a batch, with those of the keys that were asked for again in their place."""
    instead = {result.key: result for result in again}
    return tuple(instead.get(result.key, result) for result in results)


def _explicit(min_revision: int | None, epoch: str) -> Floor | None:
    if min_revision is not None:
        return Floor(min_revision, epoch)
    if epoch:
        raise ValueError("an epoch says what min_revision counts in: give both")
    return None


def _asked(request: object) -> Floor:
    return Floor(getattr(request, "min_revision", 0), getattr(request, "epoch", ""))


def _checked(timeout: float) -> float:
    if not (math.isfinite(timeout) and timeout > 0):
        raise ValueError(f"timeout must be a positive number of seconds, not {timeout}")
    return timeout
