"""``--drain``: take a version out of the traffic, wait until nobody reads it, then deactivate or delete it."""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import typer

from pointsman.change_sets import SetTraffic
from pointsman.cli.output.documents import usage_document
from pointsman.cli.output.effects import effects_document, needs_change_sets, refused_by_name, write_effects
from pointsman.cli.output.exit_codes import ExitCode
from pointsman.cli.output.terminal import Terminal
from pointsman.cli.output.text import time_text
from pointsman.cli.traffic.family import FamilyState, family_of
from pointsman.cli.traffic.weights import without
from pointsman.client import Client
from pointsman.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    PointsmanError,
    ResourceExhausted,
    RouteInUse,
    Unavailable,
    UsageNotCounted,
)
from pointsman.keys import RouteKey

if TYPE_CHECKING:
    from pointsman.change_sets import ChangeSetResult
    from pointsman.watchers import Usage

UNUSED_SECONDS = 60.0
"""For which nobody must have read it, unless an option says another time."""
WAIT_SECONDS = 600.0
"""For that, unless an option says another time."""
LEAST_SECONDS = 20.0
"""That a server accepts. After it a read is known: near-caches report every 10 seconds, servers pass on every 5."""

NOT_COUNTED = "USAGE_NOT_COUNTED"
LAST_TARGET = "LAST_TARGET"

_PAUSE = 2.0
"""Seconds between two questions who reads it."""
_PAUSE_AFTER_REFUSAL = 5.0
_PAUSE_BETWEEN_LINES = 30.0
_READERS_SHOWN = 5
_AWAY = (Unavailable, DeadlineExceeded, ResourceExhausted)

Finish = Callable[[timedelta], tuple[dict[str, Any], str]]
"""Deactivates or deletes the route, if nobody has read it for so long: returns a document, and a line for people."""


@dataclass(frozen=True, slots=True)
class Drain:
    """What to drain: ``deletes`` if the route is deleted at the end; ``unused`` and ``wait`` are in seconds."""

    key: RouteKey
    deletes: bool
    reason: str
    unused: float = UNUSED_SECONDS
    wait: float = WAIT_SECONDS


@dataclass(slots=True)
class Quiet:
    """Since when nobody reads, as far as it is known: the clocks of servers and of this machine may differ."""

    clock: Callable[[], float]
    now: Callable[[], datetime]
    _last: datetime | None = None
    _seen_at: float = 0.0
    _begun: bool = False

    def seconds(self, usage: "Usage") -> float | None:
        """Return for how long nobody has read; None if no read is known."""
        last = max((reader.last_read_time for reader in usage.readers), default=None)
        if not self._begun or last != self._last:
            self._last, self._seen_at, self._begun = last, self.clock(), True
        if last is None:
            return None
        return max((self.now() - last).total_seconds(), self.clock() - self._seen_at, 0.0)


@dataclass
class Draining:
    """One drain. Running it again goes on where the one before ended."""

    client: Client
    terminal: Terminal
    drain: Drain
    finish: Finish
    clock: Callable[[], float] = time.monotonic
    sleep: Callable[[float], object] = time.sleep
    now: Callable[[], datetime] = lambda: datetime.now(UTC)
    _moved: "ChangeSetResult | None" = None
    _usage: "Usage | None" = None
    _begun: float = field(default=0.0)

    def run(self) -> None:
        """Drain it. Exits with 5 if somebody reads it still when the time is up. Raises PointsmanError."""
        self._begun = self.clock()
        change = self._change(self._checked())
        try:
            if change:
                with refused_by_name(), needs_change_sets():
                    self._moved = self.client.commit([change], reason=self.drain.reason)
                write_effects(self.terminal, self._moved, dry_run=False)
            done = self._finished_when_unused()
        except (PointsmanError, KeyboardInterrupt) as error:
            self._tell(error)
            raise
        if done is None:
            self._tell(None)
            raise typer.Exit(ExitCode.UNAVAILABLE)
        document, line = done
        if self.terminal.as_json:
            self.terminal.document({**document, **self._document(drained=True)})
        else:
            self.terminal.line(line)

    def _checked(self) -> FamilyState:
        key = self.drain.key
        if self.drain.unused < LEAST_SECONDS:
            raise typer.BadParameter(f"must be at least {LEAST_SECONDS:g}s", param_hint="--if-unused-for")
        self.client.get(key)
        window = self.client.get_usage(key).window.total_seconds()
        if not window:
            raise UsageNotCounted("servers do not count reads: nobody can tell when it is unused", reason=NOT_COUNTED)
        if self.drain.unused > window:
            raise typer.BadParameter(f"reads are known for the last {window:g} s only", param_hint="--if-unused-for")
        return family_of(self.client, key.family)

    def _change(self, family: FamilyState) -> SetTraffic | None:
        """Return what gives the version no calls, and names it nowhere if it is to be deleted; None if it is so."""
        traffic, version = family.traffic, self.drain.key.version
        if traffic is None:
            self.terminal.note(f"no traffic is set for {family.key}: its callers must leave {version} by themselves")
            return None
        weights, fallbacks = dict(traffic.weights), list(traffic.fallbacks)
        if weights.get(version) or (self.drain.deletes and version in weights):
            weights = without(weights, version)
            self._check_others(family, weights)
        if self.drain.deletes and version in fallbacks:
            fallbacks.remove(version)
        if (weights, tuple(fallbacks)) == (traffic.weights, traffic.fallbacks):
            return None
        return SetTraffic(family.key, weights, fallbacks, traffic.revision)

    def _check_others(self, family: FamilyState, weights: dict[str, int]) -> None:
        if any(points and name in family.active for name, points in weights.items()):
            return
        version = self.drain.key.version
        other = next((name for name in family.active if name != version), "VERSION")
        error = FailedPrecondition(
            f"{version} is the only active version with a weight in the traffic of {family.key}", reason=LAST_TARGET
        )
        error.add_note(f"give its calls to another one first: pointsman traffic promote {family.key} {other}")
        raise error

    def _finished_when_unused(self) -> tuple[dict[str, Any], str] | None:
        """Return what ``finish`` did; None if the time is up before."""
        drain, quiet = self.drain, Quiet(self.clock, self.now)
        end, try_at = self._begun + drain.wait, 0.0
        with _shown(self.terminal, drain, self.clock) as show:
            while True:
                unused = self._unused(quiet)
                show(self._usage, unused, end)
                now = self.clock()
                if (unused is None or unused >= drain.unused) and now >= try_at and self._usage is not None:
                    try:
                        return self.finish(timedelta(seconds=drain.unused))
                    except (RouteInUse, *_AWAY):
                        try_at = now + _PAUSE_AFTER_REFUSAL
                if now >= end:
                    return None
                self.sleep(max(0.0, min(_PAUSE, end - now)))

    def _unused(self, quiet: Quiet) -> float | None:
        try:
            self._usage = self.client.get_usage(self.drain.key)
        except _AWAY:
            # Asked again soon; what was known stays known.
            if self._usage is None:
                return 0.0
        return quiet.seconds(self._usage) if self._usage else None

    def _tell(self, error: BaseException | None) -> None:
        """Say where it stands, how to go on, and how to undo it."""
        if self.terminal.as_json and not isinstance(error, PointsmanError):
            self.terminal.document({"key": str(self.drain.key), **self._document(drained=False)})
        lines = [*(self._reader_lines() if error is None else []), *self._where_it_stands()]
        for line in lines:
            if isinstance(error, PointsmanError):
                error.add_note(line)
            else:
                self.terminal.note(line)

    def _reader_lines(self) -> list[str]:
        key, readers = self.drain.key, self._usage.readers if self._usage else ()
        waited = f"after {self.clock() - self._begun:.0f} s"
        if not readers:
            return [f"{key} is not known to be unused {waited}: the servers could not say"]
        shown = [f"  {each.subject}: last at {time_text(each.last_read_time)}" for each in readers[:_READERS_SHOWN]]
        more = len(readers) - len(shown)
        return [f"{key} is still read {waited}, by:", *shown, *([f"  and {more} more"] if more > 0 else [])]

    def _where_it_stands(self) -> list[str]:
        verb = "deleted" if self.drain.deletes else "deactivated"
        moved = self._moved.change_set_id if self._moved else 0
        state = f"{self.drain.key} is not {verb}" + (", but the traffic gives it no calls" if moved else "")
        return [
            f"{state}: run the same command again to go on",
            *([f"to undo what is done: pointsman revert {moved}"] if moved else []),
        ]

    def _document(self, *, drained: bool) -> dict[str, Any]:
        return {
            "drained": drained,
            "traffic": effects_document(self._moved, dry_run=False) if self._moved else None,
            "seconds": self.clock() - self._begun,
            "unused_for_seconds": self.drain.unused,
            "usage": usage_document(self._usage) if self._usage else None,
        }


Show = Callable[["Usage | None", float | None, float], None]
"""Shows who reads, for how long nobody has, and when the time is up."""


@contextmanager
def _shown(terminal: Terminal, drain: Drain, clock: Callable[[], float]) -> Iterator[Show]:
    """Show on a terminal a bar; elsewhere a line, when somebody else is the last reader, or after a while."""
    if terminal.as_json:
        yield lambda _usage, _unused, _end: None
        return
    terminal.note(f"waiting until nobody has read {drain.key} for {drain.unused:g} s, up to {drain.wait:g} s")
    if not terminal.err.is_terminal:
        yield _Lines(terminal, clock)
        return
    from rich.progress import BarColumn, Progress, TextColumn

    unused_for = TextColumn("unused for {task.completed:.0f}/{task.total:.0f} s")
    with Progress(
        unused_for, BarColumn(), TextColumn("{task.description}"), console=terminal.err, transient=True
    ) as bar:
        task = bar.add_task("", total=drain.unused)

        def show(usage: "Usage | None", unused: float | None, end: float) -> None:
            left = f"{max(0.0, end - clock()):.0f} s left"
            bar.update(
                task,
                description=f"{_last_reader(usage)}; {left}",
                completed=min(drain.unused, drain.unused if unused is None else unused),
            )

        yield show


class _Lines:
    """A line, when another one is the last reader, or after a while."""

    def __init__(self, terminal: Terminal, clock: Callable[[], float]) -> None:
        self._terminal = terminal
        self._clock = clock
        self._subject: str | None = None
        self._next_at = 0.0

    def __call__(self, usage: "Usage | None", unused: float | None, end: float) -> None:
        subject = usage.readers[0].subject if usage and usage.readers else ""
        if subject == self._subject and self._clock() < self._next_at:
            return
        self._subject, self._next_at = subject, self._clock() + _PAUSE_BETWEEN_LINES
        if subject:
            left = max(0.0, end - self._clock())
            self._terminal.note(f"{_last_reader(usage)}, {unused or 0:.0f} s ago; {left:.0f} s left")


def _last_reader(usage: "Usage | None") -> str:
    if usage is None:
        return "the servers do not answer"
    return f"last read by {usage.readers[0].subject}" if usage.readers else "nobody reads it"
