"""``pointsman revert``: undo a change set, or a range of revisions."""

import re
from typing import Annotated

import typer

from pointsman.cli.context import DryRun, Json, Reason, RequestId, Wait, settings
from pointsman.cli.output.effects import effects_document, needs_change_sets, write_effects
from pointsman.cli.propagation import Waiting, waiting_time
from pointsman.errors import ChangedSince

_WHAT = re.compile(r"(\d{1,19})(?:\.\.(\d{1,19}))?", re.ASCII)
_MOST_REVISIONS = 10_000


def revert(
    context: typer.Context,
    what: Annotated[
        str,
        typer.Argument(
            metavar="CHANGE_SET|FIRST..LAST", help="As pointsman history --sets shows it.", show_default=False
        ),
    ],
    force: Annotated[bool, typer.Option("--force", help="Overwrite what was changed since.")] = False,
    dry_run: DryRun = False,
    reason: Reason = "",
    request_id: RequestId = "",
    wait: Wait = "",
    as_json: Json = False,
) -> None:
    """Undo a change set, named by its first revision, or a range of revisions: all is again as it was before.

    That is a new change set: the history stays. Refused if something of it was changed since, unless --force is given.
    """
    undone = what_of(what)
    seconds = waiting_time(wait, dry_run)
    terminal = settings(context).terminal(as_json)
    with settings(context).client(as_json) as client:
        try:
            with needs_change_sets():
                done = client.revert(undone, force=force, dry_run=dry_run, request_id=request_id, reason=reason)
        except ChangedSince as error:
            _explain(error)
            raise
        write_effects(terminal, done, dry_run)
        tenants = {change.key.tenant for change in done.changes}
        tenant = tenants.pop() if len(tenants) == 1 and not done.omitted_change_count else ""
        waiting = Waiting(
            terminal, seconds, lambda revision, left: client.get_propagation(revision, tenant=tenant, timeout=left)
        )
        document = {"reverted": what, **effects_document(done, dry_run)}
        waiting.conclude(document, "", done.revision if done.size and not dry_run else 0)


def what_of(text: str) -> int | tuple[int, int]:
    """Return the change set of ``1234``, or the range of ``1234..1240``. Raises BadParameter."""
    match = _WHAT.fullmatch(text)
    first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
    if not 0 < first <= last < 2**63:
        raise typer.BadParameter(
            f"{text!r} must be a change set, such as 1234, or revisions, such as 1234..1240", param_hint="CHANGE_SET"
        )
    if last - first >= _MOST_REVISIONS:
        raise typer.BadParameter(f"at most {_MOST_REVISIONS} revisions can be undone at once", param_hint="FIRST..LAST")
    return (first, last) if match and match[2] else first


def _explain(error: ChangedSince) -> None:
    """Make the error name each conflict on a line of its own."""
    lines = [f"{each.field}: {each.description}" for each in error.violations]
    hidden = error.count - len(lines)
    error.message = f"{error.count} {'key was' if error.count == 1 else 'keys were'} changed since"
    notes = [f"  {line}" for line in lines] + ([f"  and {hidden} more"] if hidden > 0 else [])
    error.__notes__ = [*notes, "nothing is changed: undo those first, or give --force to overwrite them"]
