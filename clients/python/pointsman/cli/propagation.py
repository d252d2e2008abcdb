"""``--wait``: after a change, wait until every watcher has it."""

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import typer

from pointsman.cli.output.documents import propagation_document
from pointsman.cli.output.exit_codes import ExitCode
from pointsman.cli.output.terminal import Terminal
from pointsman.cli.output.text import time_text
from pointsman.errors import DeadlineExceeded, PointsmanError, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from pointsman.watchers import Propagation, WatcherProgress

Ask = Callable[[int, float], "Propagation"]
"""Asks for the propagation of a revision, within so many seconds."""
Show = Callable[["Propagation"], object]

_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|)", re.ASCII)
_SECONDS = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_LONGEST = 3600.0
_PAUSE, _LONGEST_PAUSE, _FACTOR = 0.05, 0.5, 1.5
"""Seconds between two questions."""
_LEAST = 0.2
"""Seconds for one question, also the last."""


def duration(text: str, option: str = "--wait") -> float | None:
    """Return the seconds of ``5s``, ``500ms``, ``2m`` or ``5``; None for nothing. Raises BadParameter."""
    if not text:
        return None
    match = _DURATION.fullmatch(text)
    seconds = float(match[1]) * _SECONDS[match[2]] if match else 0.0
    if not 0 < seconds <= _LONGEST:
        raise typer.BadParameter(f"{text!r} must be a time such as 5s, 500ms or 2m, up to an hour", param_hint=option)
    return seconds


def waiting_time(wait: str, dry_run: bool) -> float | None:
    """Return the seconds of ``--wait``; None for nothing. Raises BadParameter, also where nothing is changed."""
    if wait and dry_run:
        raise typer.BadParameter("not together with --dry-run", param_hint="--wait")
    return duration(wait)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What is known of a revision at the end of a wait."""

    revision: int
    propagation: "Propagation"
    seconds: float

    def document(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return {"revision": self.revision, "seconds": self.seconds, **propagation_document(self.propagation)}

    def lines(self) -> list[str]:
        """Say for people who has the revision, and who has not."""
        found = self.propagation
        some = f"{found.applied_count} of {found.watcher_count} watchers"
        if not found.watcher_count:
            return ["nobody watches: there is nobody to wait for"]
        if found.complete:
            return [f"{some} have revision {self.revision} after {self.seconds:.1f} s"]
        hidden = found.watcher_count - found.applied_count - len(found.behind)
        return [
            f"only {some} have revision {self.revision} after {self.seconds:.1f} s; behind:",
            *(f"  {_laggard(watcher)}" for watcher in found.behind),
            *([f"  and {hidden} more"] if hidden > 0 else []),
        ]


class Waiting:
    """One ``--wait``, for up to ``seconds``; None: do not wait. ``ask`` is the method of a client."""

    def __init__(self, terminal: Terminal, seconds: float | None, ask: Ask) -> None:
        self._terminal = terminal
        self._seconds = seconds
        self._ask = ask

    def conclude(self, document: dict[str, Any], line: str, revision: int) -> None:
        """Write what a change did, then wait, and write who has it. Exits with 5 if somebody has not."""
        terminal = self._terminal
        if line and not terminal.as_json:
            terminal.line(line)
        try:
            outcome = self._outcome(revision)
        except (PointsmanError, KeyboardInterrupt) as error:
            known = f"the change is made, at revision {revision}; who has it is not known"
            if terminal.as_json:
                terminal.document({**document, "propagation": None})
            if isinstance(error, PointsmanError):
                error.add_note(known)
            else:
                terminal.note(known)
            raise
        if terminal.as_json:
            terminal.document({**document, **({"propagation": outcome.document()} if outcome else {})})
        elif outcome:
            self._tell(outcome)
        if outcome and not outcome.propagation.complete:
            raise typer.Exit(ExitCode.UNAVAILABLE)

    def _outcome(self, revision: int) -> Outcome | None:
        if self._seconds is None or not revision:
            return None
        begun = time.monotonic()
        with _bar(self._terminal, revision) as show:
            propagation = wait_for(revision, self._seconds, self._ask, show)
        return Outcome(revision, propagation, time.monotonic() - begun)

    def _tell(self, outcome: Outcome) -> None:
        if not outcome.propagation.all_servers:
            self._terminal.note("without Redis only the watchers of the server that answered are known")
        write = self._terminal.line if outcome.propagation.complete else self._terminal.note
        for line in outcome.lines():
            write(line)


def wait_for(revision: int, seconds: float, ask: Ask, show: Show) -> "Propagation":
    """Ask until every watcher has ``revision`` or the time is up, and return the last answer.

    Raises the last PointsmanError if there was no answer, and at once one that another try cannot help.
    """
    end, pause = time.monotonic() + seconds, _PAUSE
    found: Propagation | None = None
    while True:
        try:
            found = ask(revision, max(end - time.monotonic(), _LEAST))
        except (Unavailable, DeadlineExceeded, ResourceExhausted):
            if found is None and time.monotonic() >= end:
                raise
        else:
            show(found)
        if found and (found.complete or time.monotonic() >= end):
            return found
        time.sleep(max(0.0, min(pause, end - time.monotonic())))
        pause = min(pause * _FACTOR, _LONGEST_PAUSE)


@contextmanager
def _bar(terminal: Terminal, revision: int) -> Iterator[Show]:
    """Show on a terminal how many watchers have the revision."""
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("revision {task.description}"),
        BarColumn(),
        TextColumn("{task.completed:.0f}/{task.total:.0f}"),
    )
    hidden = not terminal.err.is_terminal
    with Progress(*columns, TimeElapsedColumn(), console=terminal.err, transient=True, disable=hidden) as bar:
        task = bar.add_task(str(revision), total=0)
        yield lambda found: bar.update(task, completed=found.applied_count, total=found.watcher_count)


def _laggard(watcher: "WatcherProgress") -> str:
    subject = f", as {watcher.subject}" if watcher.subject else ""
    place = f"{watcher.name or watcher.watcher_id} ({watcher.address}{subject})"
    return f"{place}: at revision {watcher.applied_revision}, watches since {time_text(watcher.watch_time)}"
