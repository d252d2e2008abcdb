"""Checks the dependencies of this server, and so whether it can answer reads."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace

from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)

# Returns what there is to say of a dependency that is up, if anything.
Check = Callable[[], Awaitable[str | None]]


class DependencyDown(Exception):
    """A dependency does not do its work; the text says which, where, and what to do."""


class MustNotServe(DependencyDown):
    """A dependency is in a state in which answers may be wrong: nothing stands in for it."""


@dataclass(frozen=True, slots=True)
class DependencyState:
    """The result of the last check. ``required``: without it, or a stand-in, reads cannot be answered.

    ``since``: when it went up or down, or was first checked, in seconds since 1970.
    """

    name: str
    required: bool
    up: bool = False
    detail: str = "not checked yet"
    replaceable: bool = True
    since: float = field(default=0.0, compare=False)


class HealthMonitor:
    """Checks every dependency each ``interval`` seconds; ``changed`` is called after every check.

    One that hangs delays no other. A check is done when it returns, and failed when it raises or takes longer than
    ``patience`` seconds. ``stand_ins`` name, for something required, what answers in its place once it was up: a
    server that can still answer must not be taken out of rotation, least of all together with all others.
    """

    def __init__(
        self,
        checks: Mapping[str, Check],
        *,
        required: frozenset[str],
        stand_ins: Mapping[str, str] | None = None,
        changed: Callable[["HealthMonitor"], Awaitable[None]],
        interval: float = 1.0,
        patience: float = 5.0,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._checks = dict(checks)
        self._changed = changed
        self._interval = interval
        self._patience = patience
        self._now = now
        self._stand_ins = dict(stand_ins or {})
        self._seen: set[str] = set()
        self.states = {name: DependencyState(name, name in required) for name in checks}

    @property
    def ready(self) -> bool:
        """Whether reads can be answered: everything required is up, or has a stand-in that is."""
        return all(state.up or self._has_stand_in(state) for state in self.states.values() if state.required)

    @property
    def degraded(self) -> bool:
        """Whether anything is down."""
        return not all(state.up for state in self.states.values())

    def _has_stand_in(self, state: DependencyState) -> bool:
        stand_in = self.states.get(self._stand_ins.get(state.name, ""))
        return state.replaceable and state.name in self._seen and stand_in is not None and stand_in.up

    async def run(self) -> None:
        """Check until cancelled."""
        async with asyncio.TaskGroup() as group:
            for name in self._checks:
                group.create_task(self._check_for_ever(name))

    async def round(self) -> None:
        """Check everything once."""
        await asyncio.gather(*(self._check(name) for name in self._checks))
        await self._changed(self)

    async def _check_for_ever(self, name: str) -> None:
        while True:
            await asyncio.sleep(self._interval)
            await self._check(name)
            await self._changed(self)

    async def _check(self, name: str) -> None:
        before = self.states[name]
        try:
            async with asyncio.timeout(self._patience):
                found = await self._checks[name]()
            after = DependencyState(name, before.required, up=True, detail=found or "ok")
            self._seen.add(name)
        except MustNotServe as error:
            after = DependencyState(name, before.required, up=False, detail=str(error), replaceable=False)
        except DependencyDown as error:
            after = DependencyState(name, before.required, up=False, detail=str(error))
        except TimeoutError:
            after = DependencyState(
                name, before.required, up=False, detail=f"does not answer within {self._patience:g} s"
            )
        except Exception as error:  # noqa: BLE001 - a bug in one check must not end them all
            after = DependencyState(name, before.required, up=False, detail=f"the check failed: {type(error).__name__}")
        if (after.up, after.detail) != (before.up, before.detail):
            _tell(before, after)
        began = not before.since or after.up != before.up
        self.states[name] = replace(after, since=self._now() if began else before.since)


def _tell(before: DependencyState, after: DependencyState) -> None:
    if not after.up:
        log.warning("a dependency is down, trying again", dependency=after.name, detail=after.detail)
    elif not before.up:
        log.info("a dependency is up", dependency=after.name)
