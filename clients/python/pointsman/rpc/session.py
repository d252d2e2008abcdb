"""What both clients share around a call: its deadline, its credentials, and the memory of what was seen."""

import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from pointsman.connection.bearer import Bearer
from pointsman.errors import PointsmanError
from pointsman.keys import FamilyKey, RouteKey, as_family
from pointsman.memory import DEFAULT_KEYS, Floor, Memory, Sighting
from pointsman.results import BatchResult
from pointsman.rpc.operations import Operation, absence, all_resolved

if TYPE_CHECKING:
    from pointsman.rpc.selections import Answer

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

    def wrote_any(self, revision: int) -> None: ...

    def shut_down(self) -> None: ...


class Session:
    """The defaults of every call of one client, and what the client has learned from the answers."""

    def __init__(self, timeout: float, bearer: Bearer, max_attempts: int, remembered_keys: int = DEFAULT_KEYS) -> None:
        self.timeout = _checked(timeout)
        self.bearer = bearer
        self.max_attempts = max_attempts
        self.memory = Memory(remembered_keys)
        self.near_caches: tuple[NearCacheMemory, ...] = ()

    def countdown(self, timeout: float | None) -> Callable[[], float]:
        """Return a function that says how many seconds are left, for what takes several attempts or calls.

        Never fewer than ``NO_TIME``: gRPC takes a deadline that is over, but no timeout below zero.
        Raises ValueError unless ``timeout`` is positive and finite; None means that of the client.
        """
        end = time.monotonic() + (self.timeout if timeout is None else _checked(timeout))
        return lambda: max(end - time.monotonic(), NO_TIME)

    def floor(self, key: RouteKey, min_revision: int | None, epoch: str) -> Floor:
        """Return what a resolve of ``key`` must have reached: what the caller says, or all that was seen and written.

        Raises ValueError for an epoch without a revision.
        """
        return _explicit(min_revision, epoch) or self._floor(key, self.memory.floor(str(key)))

    def select_floor(self, key: FamilyKey | str, min_revision: int | None, epoch: str, as_of: object) -> Floor:
        """Return what a select must have reached: as for a resolve, and nothing where it is of another moment.

        Raises as ``floor`` does, and ValueError for ``min_revision`` together with ``as_of``.
        """
        if as_of is not None:
            if min_revision is not None or epoch:
                raise ValueError("min_revision and as_of exclude each other: what was then does not become newer")
            return Floor()
        return self.floor(as_family(key).version(""), min_revision, epoch)

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

    def select_again(self, answers: "Sequence[Answer]", min_revision: int | None) -> tuple[list[int], Floor]:
        """Return the positions in a batch of the selections that are older than what was seen, and what to ask for."""
        from pointsman.rpc.selections import sightings_of

        if min_revision is not None:
            return [], Floor()
        sightings = [(position, each) for position, answer in enumerate(answers) for each in sightings_of(answer)]
        every = [each for _, each in sightings]
        behind = self.memory.behind(every) | self._behind_near_caches(every)
        late = [position for position, each in sightings if each.key in behind]
        return late, max(behind.values(), default=Floor())

    def accepted(
        self, operation: Operation[Request, Response, Result], request: Request, response: Response, began: str
    ) -> Result:
        """Remember what an answer tells, and return its result; ``began`` is the epoch when the call began."""
        if operation.written is not None:
            self.memory.wrote(operation.written(response), began)
        result = operation.read(response)
        if operation.written is not None:
            self._tell_written(request, result, operation.written(response))
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

    def _tell_written(self, request: object, result: object, revision: int) -> None:
        if not self.near_caches:
            return
        from pointsman.rpc.written import names_all, written_keys

        for cache in self.near_caches:
            if not names_all(request, result):
                cache.wrote_any(revision)
            for keys, siblings in written_keys(request, result):
                cache.wrote(keys, revision, siblings=siblings)

    def _floor(self, key: RouteKey, floor: Floor) -> Floor:
        for cache in self.near_caches:
            shown = cache.floor(key)
            if shown.revision > floor.revision and floor.epoch in {"", shown.epoch}:
                floor = shown
        return floor

    def _behind_near_caches(self, sightings: Iterable[Sighting]) -> dict[str, Floor]:
        if not self.near_caches:
            return {}
        floors = ((each, self._floor(_key(each.key), Floor(each.as_of, each.epoch))) for each in sightings)
        return {each.key: floor for each, floor in floors if floor.revision > each.as_of}


def left_out(results: Iterable[BatchResult]) -> list[RouteKey]:
    """Return the keys whose answers did not fit into the response of a batch: they need another call."""
    return [result.key for result in results if result.error and result.error.reason == "RESPONSE_TOO_LARGE"]


def newer(results: tuple[BatchResult, ...], again: tuple[BatchResult, ...]) -> tuple[BatchResult, ...]:
    """Return the results of a batch, with those of the keys that were asked for again in their place."""
    instead = {result.key: result for result in again}
    return tuple(instead.get(result.key, result) for result in results)


def _key(text: str) -> RouteKey:
    return RouteKey(*(*text.split("/"), "")[:4])


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
