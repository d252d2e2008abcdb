"""Whether routes are unused: the condition ``if_unused_for`` of Deactivate and Delete."""

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import NamedTuple

from pointsman_server.domain.errors import PointsmanError, RouteInUse, UsageNotCounted, UsageUnavailable
from pointsman_server.domain.routes import RouteKey, Snapshot
from pointsman_server.ports import usage_log
from pointsman_server.ports.usage_log import Reader, ReadersNow
from pointsman_server.reads.usage import UsageRecorder

Load = Callable[[Sequence[RouteKey]], Awaitable[Sequence[Snapshot]]]


class Condition(NamedTuple):
    """Nobody may have read the route ``key`` within the last so many ``seconds``."""

    key: RouteKey
    seconds: float


class UnusedCheck:
    """Checks conditions by the reads of all servers, as far as these are known: see ``reads.usage.Usage``.

    What cannot be told is not unused: where the log is younger than the time of a condition, as after Redis has lost
    what it had, only a route that is younger still can be told to be unused. Reads that begin after the check do not
    count, so a caller that appears between it and the write is not seen.

    ``load`` reads routes from the store.
    """

    def __init__(self, recorder: UsageRecorder, load: Load) -> None:
        self._recorder = recorder
        self._load = load

    async def refusals(self, conditions: Sequence[Condition]) -> list[PointsmanError | None]:
        """Return for each condition, in order, why it does not hold: None if it does.

        The errors are RouteInUse, UsageNotCounted where reads are not counted or not for so long, and UsageUnavailable
        while the reads of other servers are not known. Raises what ``load`` raises.
        """
        window = self._recorder.window
        counted = [condition for condition in conditions if condition.seconds <= window]
        keys = list(dict.fromkeys(condition.key for condition in counted))
        try:
            found = dict(zip(keys, await self._recorder.readers_of(keys), strict=True)) if keys else {}
        except usage_log.UsageUnavailable:
            found = {}
        births = await self._births(condition.key for condition in counted if _is_too_young(condition, found))
        return [self._refusal(condition, found, births) for condition in conditions]

    def _refusal(
        self, condition: Condition, found: Mapping[RouteKey, ReadersNow], births: Mapping[RouteKey, datetime]
    ) -> PointsmanError | None:
        key, seconds = condition
        if seconds > self._recorder.window:
            return UsageNotCounted(self._recorder.window)
        if key not in found:
            return UsageUnavailable()
        now, since = found[key].now, found[key].since
        readers = [reader for reader in found[key].readers if reader.last > now - timedelta(seconds=seconds)]
        if readers:
            return RouteInUse(str(key), list(map(_text, readers)))
        if _is_too_young(condition, found) and key in births and births[key] < since:
            return UsageUnavailable((now - since).total_seconds())
        return None

    async def _births(self, keys: Iterable[RouteKey]) -> Mapping[RouteKey, datetime]:
        """Return when each route was created; one that does not exist is left out."""
        asked = list(dict.fromkeys(keys))
        snapshots = await self._load(asked) if asked else ()
        return {each.key: each.route.create_time for each in snapshots if each.route}


def _is_too_young(condition: Condition, found: Mapping[RouteKey, ReadersNow]) -> bool:
    """Return whether the log is younger than the time of a condition."""
    of_key = found.get(condition.key)
    return of_key is not None and of_key.since > of_key.now - timedelta(seconds=condition.seconds)


def _text(reader: Reader) -> str:
    return f"{reader.subject} {reader.last:%Y-%m-%dT%H:%M:%SZ}"
