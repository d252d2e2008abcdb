"""``pointsman diff``: what differs between two moments."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Annotated

import typer

from pointsman.cli.context import Env, Json, Service, Tenant, settings
from pointsman.cli.moments import moment_of
from pointsman.cli.output.documents import difference_document
from pointsman.cli.output.text import difference_text, time_text, traffic_difference_text
from pointsman.results import Route, Traffic

if TYPE_CHECKING:
    from pointsman.change_sets import Difference

_STYLES = {"+": "green", "-": "red", "~": "yellow"}


def diff(
    context: typer.Context,
    start: Annotated[
        str,
        typer.Option(
            "--from",
            metavar="MOMENT",
            help="A revision, a time in UTC like '2026-11-20 14:00', one with a zone (RFC 3339), or '2h ago'.",
            show_default=False,
        ),
    ],
    end: Annotated[str, typer.Option("--to", metavar="MOMENT", help="The same; default: now.")] = "",
    tenant: Tenant = "",
    service: Service = "",
    env: Env = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say who changed each last, when and why.")] = False,
    as_json: Json = False,
) -> None:
    """Show what differs between two moments: of routes and of traffic. What was changed back does not differ."""
    terminal = settings(context).terminal(as_json)
    first, last = moment_of(start, "--from"), moment_of(end, "--to")
    if first is None:
        raise typer.BadParameter("it must name a moment", param_hint="--from")
    with settings(context).client(as_json) as client:
        found = client.diff(first, last, tenant=tenant, service=service, env=env)
    if terminal.as_json:
        terminal.document([difference_document(each) for each in found])
        return
    for each in found:
        mark = "+" if each.before is None else "-" if each.after is None else "~"
        terminal.line(f"{mark} {each.key}  {_what(each)}", style=_STYLES[mark])
        if verbose:
            terminal.line(f"  {_last(each)}")
    terminal.note(_summary(found, first, last))


def _what(each: "Difference") -> str:
    if isinstance(each.before, Traffic) or isinstance(each.after, Traffic):
        before, after = (state if isinstance(state, Traffic) else None for state in (each.before, each.after))
        return traffic_difference_text(before, after)
    routes = (state if isinstance(state, Route) else None for state in (each.before, each.after))
    return difference_text(*routes)


def _last(each: "Difference") -> str:
    change = each.last_change
    reason = f" ({change.reason})" if change.reason else ""
    times = "" if each.change_count == 1 else f", the last of {each.change_count} changes"
    return f"revision {change.revision}, {time_text(change.occur_time)}, by {change.actor}{reason}{times}"


def _summary(found: "Sequence[Difference]", first: int | datetime, last: int | datetime | None) -> str:
    counts = {
        "added": sum(each.before is None for each in found),
        "removed": sum(each.after is None for each in found),
        "changed": sum(each.before is not None and each.after is not None for each in found),
    }
    what = ", ".join(f"{count} {name}" for name, count in counts.items() if count) or "no difference"
    return f"{what} between {_moment(first)} and {'now' if last is None else _moment(last)}"


def _moment(moment: int | datetime) -> str:
    return time_text(moment.astimezone(UTC)) if isinstance(moment, datetime) else f"revision {moment}"
