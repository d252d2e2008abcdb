"""``pointsman select``: the URL that a caller is to use."""

from typing import Annotated

import typer

from pointsman.cli.context import AsOf, Family, Json, StickyKey, settings
from pointsman.cli.moments import moment_of
from pointsman.cli.output.documents import selection_document
from pointsman.cli.output.selections import choice_text
from pointsman.results import Consistency


def select(
    context: typer.Context,
    family: Family,
    sticky_key: StickyKey = "",
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Say where the answer came from.")] = False,
    min_revision: Annotated[int, typer.Option(min=0, help="As of this revision or later.")] = 0,
    consistency: Annotated[Consistency, typer.Option(help="How new the answer must be.")] = (
        Consistency.MINIMIZE_LATENCY
    ),
    as_of: AsOf = "",
    as_json: Json = False,
) -> None:
    """Print the URL that a caller is to use; and why it is that one, to stderr."""
    moment = moment_of(as_of)
    if moment is not None and min_revision:
        raise typer.BadParameter("give one of them", param_hint="--as-of and --min-revision")
    terminal = settings(context).terminal(as_json)
    with settings(context).client(as_json) as client:
        floor = None if moment is not None else min_revision
        selection = client.select(family, sticky_key, min_revision=floor, consistency=consistency, as_of=moment)
    if terminal.as_json:
        terminal.document(selection_document(selection))
        return
    terminal.line(selection.url)
    terminal.note(choice_text(selection.choice, selection.traffic_revision))
    if verbose:
        age = f"{selection.age.total_seconds():.3f} s"
        terminal.note(f"source {selection.source}, age {age}, as of revision {selection.as_of_revision}")
