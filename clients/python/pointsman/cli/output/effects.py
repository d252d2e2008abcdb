"""How what a change set does, or would do, reads to people and to programs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from pointsman.change_sets import ChangeSetResult
from pointsman.cli.output.documents import change_set_document
from pointsman.cli.output.terminal import Terminal
from pointsman.cli.output.text import what_text
from pointsman.errors import PointsmanError, Unimplemented
from pointsman.results import Change

STYLES = {"+": "green", "~": "yellow", "-": "red"}
"""By sign: what is new, what changes, what goes."""


def sign_of(before: object | None, after: object | None) -> str:
    """Return ``+`` for what is new, ``-`` for what goes, ``~`` for what changes."""
    if before is None:
        return "+"
    return "-" if after is None else "~"


def effect_text(change: Change) -> str:
    """Return a change as a line of a difference."""
    before, after = change.traffic_before or change.before, change.traffic_after or change.after
    return f"{sign_of(before, after)} {change.key} {what_text(change)}"


@contextmanager
def needs_change_sets() -> Iterator[None]:
    """Make the error of a server that has no change sets say what to do."""
    try:
        yield
    except Unimplemented as error:
        error.message = "this server is older than this command: it knows no change sets and no traffic"
        error.add_note("upgrade the servers first, or use a pointsman of their version")
        raise


@contextmanager
def refused_by_name() -> Iterator[None]:
    """Make the error of a change set say why, without the numbers of mutations that nobody has written."""
    try:
        yield
    except PointsmanError as error:
        if error.refusals:
            error.message = "; ".join(refusal.message for refusal in error.refusals)
            error.violations = ()
        raise


def write_effects(terminal: Terminal, done: ChangeSetResult, dry_run: bool) -> None:
    """Write each change, unless there is to be a document, and which change set they are."""
    if not terminal.as_json:
        for change in done.changes:
            text = effect_text(change)
            terminal.line(text, STYLES[text[0]])
    if done.omitted_change_count:
        terminal.note(f"and {done.omitted_change_count} more")
    if not done.size:
        terminal.note("nothing to do: all is so already")
    elif dry_run:
        terminal.note("nothing is changed: this is what would be done")
    else:
        terminal.note(f"done: change set {done.change_set_id}")


def effects_document(done: ChangeSetResult, dry_run: bool) -> dict[str, Any]:
    """Return what a change set did, or would do."""
    return {"dry_run": dry_run, **change_set_document(done)}
