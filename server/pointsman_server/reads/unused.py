"""Whether routes are unused: the condition ``if_unused_for`` of Deactivate and Delete."""

from collections.abc import Sequence
from datetime import timedelta
from typing import NamedTuple

from pointsman_server.domain.errors import PointsmanError, RouteInUse, UsageNotCounted, UsageUnavailable
from pointsman_server.domain.routes import RouteKey
from pointsman_server.ports import usage_log
from pointsman_server.ports.usage_log import ReadersNow
from pointsman_server.reads.usage import UsageRecorder


class Condition(NamedTuple):
    """Nobody may have read the route ``key`` within the last so many ``seconds``."""

    key: RouteKey
    seconds: float


class UnusedCheck:
    """Checks conditions by the reads of all servers, as far as these are known: see ``reads.usage.Usage``.

    What cannot be told is not unused. Reads that begin after the check do not count, so a caller that appears between
    it and the write is not seen.
    """

    def __init__(self, recorder: UsageRecorder) -> None:
        self._recorder = recorder

    async def refusals(self, conditions: Sequence[Condition]) -> list[PointsmanError | None]:
        """Return for each condition, in order, why it does not hold: None if it does.

        The errors are RouteInUse, UsageNotCounted where reads are not counted or not for so long, and UsageUnavailable
        while the reads of other servers are not known.
        """
        window = self._recorder.window
        keys = list(dict.fromkeys(condition.key for condition in conditions if condition.seconds <= window))
        try:
            found = dict(zip(keys, await self._recorder.readers_of(keys), strict=True)) if keys else {}
        except usage_log.UsageUnavailable:
            found = {}
        return [self._refusal(condition, found.get(condition.key)) for condition in conditions]

    def _refusal(self, condition: Condition, found: ReadersNow | None) -> PointsmanError | None:
        if condition.seconds > self._recorder.window:
            return UsageNotCounted(self._recorder.window)
        if found is None:
            return UsageUnavailable()
        since = found.now - timedelta(seconds=condition.seconds)
        readers = [
            f"{reader.subject} {reader.last:%Y-%m-%dT%H:%M:%SZ}" for reader in found.readers if reader.last > since
        ]
        return RouteInUse(str(condition.key), readers) if readers else None
