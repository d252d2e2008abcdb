"""``pointsman history``: who changed what, when and why, change by change or set by set."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import groupby, islice
from typing import Annotated, Any

import typer

from pointsman.cli.commands.read import LARGEST_PAGE
from pointsman.cli.context import Env, Json, Service, Tenant, settings
from pointsman.cli.moments import time_of
from pointsman.cli.output.documents import change_document
from pointsman.cli.output.terminal import Terminal
from pointsman.cli.output.text import time_text, what_text
from pointsman.keys import FamilyKey, RouteKey
from pointsman.results import Change

_MOST_KEYS = 3


def history(
    context: typer.Context,
    key: Annotated[
        str | None,
        typer.Argument(metavar="[KEY]", help="tenant/service/env/version, or tenant/service/env with its traffic"),
    ] = None,
    tenant: Tenant = "",
    service: Service = "",
    env: Env = "",
    actor: Annotated[str, typer.Option(help="Only changes by this actor.")] = "",
    after_revision: Annotated[int, typer.Option(min=0, help="Only later changes.")] = 0,
    before_revision: Annotated[int, typer.Option(min=0, help="Only earlier changes; 0: no limit.")] = 0,
    after: Annotated[
        str, typer.Option(metavar="TIME", help="Only later changes: '2026-11-20 14:00' (UTC), RFC 3339 or '2h ago'.")
    ] = "",
    before: Annotated[str, typer.Option(metavar="TIME", help="Only changes until then.")] = "",
    newest_first: Annotated[bool, typer.Option("--newest-first/--oldest-first")] = True,
    sets: Annotated[bool, typer.Option("--sets", help="One line for what was changed together.")] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="With --sets: show the changes of each.")] = False,
    limit: Annotated[int, typer.Option(min=0, help="At most this many; 0: all.")] = 50,
    as_json: Json = False,
) -> None:
    """Show who changed what, when and why."""
    if key and (tenant or service or env):
        raise typer.BadParameter("give KEY, or --tenant, --service and --env, not both", param_hint="KEY")
    terminal = settings(context).terminal(as_json)
    wanted = _wanted(key) if key else RouteKey(tenant, service, env, "")
    after_time, before_time = time_of(after, "--after"), time_of(before, "--before")
    with settings(context).client(as_json) as client:
        found = client.changes(
            tenant=wanted.tenant,
            service=wanted.service,
            env=wanted.env,
            version=wanted.version,
            actor=actor,
            after_revision=after_revision,
            before_revision=before_revision,
            after_time=after_time,
            before_time=before_time,
            newest_first=newest_first,
            page_size=LARGEST_PAGE if sets else min(limit or LARGEST_PAGE, LARGEST_PAGE),
        )
        if sets:
            _show_sets(terminal, list(islice(change_sets(found), limit or None)), verbose)
        else:
            _show(terminal, list(islice(found, limit or None)))


def _wanted(key: str) -> RouteKey:
    return FamilyKey.parse(key).version("") if key.count("/") == 2 else RouteKey.parse(key)


def _show(terminal: Terminal, changes: Sequence[Change]) -> None:
    if terminal.as_json:
        terminal.document([change_document(change) for change in changes])
    elif changes:
        terminal.table(("REVISION", "TIME", "KIND", "KEY", "ACTOR", "CHANGE", "REASON"), map(_change_row, changes))
    else:
        terminal.note("no changes match")


def _change_row(change: Change) -> tuple[str, ...]:
    return (
        str(change.revision),
        time_text(change.occur_time),
        change.kind,
        str(change.key),
        change.actor,
        what_text(change),
        change.reason,
    )


@dataclass(frozen=True, slots=True)
class ChangeSet:
    """Changes that were made together: ``size`` of them, of which ``changes`` match what was asked for."""

    change_set_id: int
    size: int
    changes: tuple[Change, ...]

    @property
    def first(self) -> Change:
        """The first of them that is known: it has the actor, the reason and the time of all."""
        return self.changes[0]

    @property
    def time(self) -> datetime:
        """When they were made."""
        return self.first.occur_time

    def count_text(self) -> str:
        """Return ``12``, or ``3 of 12`` where only some match."""
        return str(self.size) if len(self.changes) == self.size else f"{len(self.changes)} of {self.size}"

    def keys_text(self) -> str:
        """Name the first keys."""
        keys = list(dict.fromkeys(str(change.key) for change in self.changes))
        more = [f"… and {len(keys) - _MOST_KEYS} more"] if len(keys) > _MOST_KEYS else []
        return ", ".join(keys[:_MOST_KEYS] + more)

    def document(self) -> dict[str, Any]:
        """Return it for ``--json``."""
        return {
            "change_set_id": self.change_set_id,
            "change_set_size": self.size,
            "epoch": self.first.epoch,
            "actor": self.first.actor,
            "reason": self.first.reason,
            "occur_time": self.time.isoformat(),
            "changes": [change_document(change) for change in self.changes],
        }


def change_sets(changes: Iterable[Change]) -> Iterator[ChangeSet]:
    """Yield sets of consecutive changes. A change whose server recorded no set is one of its own."""
    for (_, number), found in groupby(changes, lambda change: (change.epoch, change.change_set_id or change.revision)):
        members = tuple(found)
        yield ChangeSet(number, members[0].change_set_size or 1, members)


def _show_sets(terminal: Terminal, found: Sequence[ChangeSet], verbose: bool) -> None:
    if terminal.as_json:
        terminal.document([each.document() for each in found])
    elif not found:
        terminal.note("no changes match")
    elif verbose:
        for each in found:
            reason = f"({each.first.reason})" if each.first.reason else ""
            parts = (str(each.change_set_id), time_text(each.time), each.first.actor, _size(each), reason)
            terminal.line("  ".join(filter(None, parts)), style="bold")
            for change in each.changes:
                terminal.line(f"  {change.revision}  {change.kind}  {change.key}  {what_text(change)}".rstrip())
    else:
        terminal.table(("SET", "TIME", "ACTOR", "CHANGES", "KEYS", "REASON"), map(_set_row, found))


def _size(each: ChangeSet) -> str:
    return f"{each.count_text()} {'change' if each.size == 1 else 'changes'}"


def _set_row(each: ChangeSet) -> tuple[str, ...]:
    first = each.first
    return str(each.change_set_id), time_text(each.time), first.actor, each.count_text(), each.keys_text(), first.reason
