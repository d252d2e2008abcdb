"""``pointsman watch``: changes as they are made, for people or as JSON lines."""

import re
import sys
import time
from collections.abc import Callable
from typing import Annotated, Any

import typer

from pointsman.cli.context import Env, Service, Tenant, settings
from pointsman.cli.live.follower import Follower, Interrupted
from pointsman.cli.output.documents import change_document, error_document, route_document, traffic_document
from pointsman.cli.output.streams import (
    OutputFailed,
    check_reader,
    discard,
    finish,
    json_text,
    write_note,
    write_result,
)
from pointsman.cli.output.terminal import Terminal
from pointsman.cli.output.text import time_text, what_text
from pointsman.near_cache.watch.protocol import Apply, Confirm, Position, Replace
from pointsman.results import Change
from pointsman.rpc.convert import change_of, route_of, traffic_of
from pointsman.v1.route_pb2 import Route
from pointsman.v1.watch_pb2 import WatchRequest

_TOKEN = re.compile(r"(\d{1,19})/(\S{1,36})", re.ASCII)

Step = Replace[Any] | Apply | Confirm | Interrupted


def watch(
    context: typer.Context,
    tenant: Tenant = "",
    service: Service = "",
    env: Env = "",
    resume: Annotated[
        str, typer.Option("--from", metavar="REVISION/EPOCH", help="Only what comes after it: `resume` of --json.")
    ] = "",
    as_json: Annotated[bool, typer.Option("--json", help="Write one JSON document a line, for each event.")] = False,
) -> None:
    """Print changes as they are made, until Ctrl-C or until nobody reads. Goes on after an outage, without a gap.

    First it says how many routes there are. With --json each line is an event: `snapshot` has all routes and traffic,
    `changes` what was changed together, `checkpoint` says that nothing is missing; `resume` is what --from takes.
    """
    position = position_of(resume) if resume else None
    terminal = settings(context).terminal(as_json)
    printer: Printer = JsonLines() if terminal.as_json else People(terminal, position)
    request = WatchRequest(tenant=tenant, service=service, env=env, traffic=True)
    with settings(context).client(as_json) as client:
        try:
            for step in Follower(client, request, printer.convert, position).steps():
                printer.write(step)
                finish()
                check_reader(sys.stdout)
        except KeyboardInterrupt:  # how it is meant to end
            return
        except OutputFailed as error:
            if not isinstance(error.__cause__, BrokenPipeError):
                raise
            discard(sys.stdout)  # nobody reads any more: the other way in which it is meant to end


def position_of(text: str) -> Position:
    """Read ``REVISION/EPOCH``. Raises BadParameter."""
    match = _TOKEN.fullmatch(text)
    if match is None or int(match[1]) >= 2**63:
        raise typer.BadParameter("must be REVISION/EPOCH, as `resume` of --json has it", param_hint="--from")
    return Position(match[2], int(match[1]))


def token_text(position: Position | None) -> str | None:
    """Return what ``position_of`` reads."""
    return f"{position.revision}/{position.epoch}" if position else None


class JsonLines:
    """One document a line; what interrupts the stream goes to stderr."""

    def convert(self, route: Route) -> dict[str, Any]:
        """Return what a snapshot holds of a route."""
        return route_document(route_of(route))

    def write(self, step: Step) -> None:
        """Write a step. Raises OutputFailed."""
        if isinstance(step, Interrupted):
            document = {**error_document(step.error), "resume": token_text(step.resume), "pause_seconds": step.pause}
            write_note(json_text({"interrupted": document}, sys.stderr))
        else:
            write_result(json_text({**self._event(step), "resume": token_text(step.as_of)}, sys.stdout))

    def _event(self, step: Replace[dict[str, Any]] | Apply | Confirm) -> dict[str, Any]:
        if isinstance(step, Replace):
            # A server of an earlier release sends no traffic: then it is not known, which is not the same as none.
            traffic = None if step.traffic is None else [traffic_document(traffic_of(each)) for each in step.traffic]
            return {
                "event": "snapshot",
                "route_count": len(step.routes),
                "routes": step.routes,
                "traffic": traffic,
            }
        if isinstance(step, Apply):
            return {"event": "changes", "changes": [change_document(change_of(change)) for change in step.changes]}
        return {"event": "checkpoint", "age_seconds": step.age}


class People:
    """One line for each change; snapshots are counted."""

    def __init__(
        self, terminal: Terminal, position: Position | None, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._terminal = terminal
        self._position = position
        self._clock = clock
        self._away_since: float | None = None
        self._told = ""

    def convert(self, route: Route) -> None:
        """Keep nothing of a route."""

    def write(self, step: Step) -> None:
        """Write a step. Raises OutputFailed."""
        if isinstance(step, Interrupted):
            self._interrupted(step)
            return
        self._back(step.as_of)
        if isinstance(step, Replace):
            self._snapshot(step)
        elif isinstance(step, Apply):
            for change in step.changes:
                self._terminal.line(change_text(change_of(change)))
        self._position = step.as_of

    def _snapshot(self, step: Replace[None]) -> None:
        if self._position is not None:
            why = "the epoch has changed" if self._position.epoch != step.as_of.epoch else "they are not kept any more"
            self._terminal.note(f"some changes after revision {self._position.revision} are not shown: {why}")
        count = len(step.routes)
        services = len(step.traffic or ())
        traffic = f", traffic of {services} {'service' if services == 1 else 'services'}," if services else ""
        routes = f"{count} {'route' if count == 1 else 'routes'}"
        self._terminal.line(f"{routes}{traffic} as of revision {step.as_of.revision}")

    def _interrupted(self, step: Interrupted) -> None:
        if self._away_since is None:
            self._away_since = self._clock()
        reason = step.error.message or step.error.code.name
        if reason != self._told:
            after = f"after revision {step.resume.revision}" if step.resume else "with a new snapshot"
            self._terminal.note(f"interrupted: {reason}: going on {after} once the server answers")
            self._told = reason

    def _back(self, as_of: Position) -> None:
        if self._away_since is not None:
            self._terminal.note(
                f"going on after {self._clock() - self._away_since:.1f} s, at revision {as_of.revision}"
            )
        self._away_since, self._told = None, ""


Printer = JsonLines | People


def change_text(change: Change) -> str:
    """Return a change in one line: when, who, what and why."""
    what = what_text(change)
    reason = f"({change.reason})" if change.reason else ""
    when = time_text(change.occur_time)
    parts = (when, str(change.revision), change.actor, change.kind, str(change.key), what, reason)
    return "  ".join(filter(None, parts))
