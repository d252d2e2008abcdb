"""``pointsman who``: who reads a key."""

from datetime import timedelta

import typer

from pointsman.cli.context import Json, Key, settings
from pointsman.cli.output.documents import usage_document
from pointsman.cli.output.text import time_text
from pointsman.watchers import Reader

_UNITS = (("d", 86400), ("h", 3600), ("min", 60), ("s", 1))


def who(context: typer.Context, key: Key, as_json: Json = False) -> None:
    """Show who has read a key lately, by name: ask before you take a route away. Counts are estimates."""
    terminal = settings(context).terminal(as_json)
    with settings(context).client(as_json) as client:
        usage = client.get_usage(key)
    if terminal.as_json:
        terminal.document({"key": key, **usage_document(usage)})
        return
    window = window_text(usage.window)
    if usage.readers:
        terminal.table(("READER", "READS", "LAST READ"), map(_row, usage.readers))
        terminal.note(f"reads of the last {window}, as far as servers have counted them")
    else:
        terminal.note(f"nobody has read {key} in the last {window}")
    if not usage.all_servers:
        terminal.note("without Redis only what the server that answered has counted is known")


def window_text(window: timedelta) -> str:
    """Return a length of time in the largest unit that makes it a whole number."""
    seconds = round(window.total_seconds())
    unit, size = next(each for each in _UNITS if (seconds >= each[1] and seconds % each[1] == 0) or each[1] == 1)
    return f"{seconds // size} {unit}"


def _row(reader: Reader) -> tuple[str, ...]:
    return reader.subject, f"~{reader.read_count}", time_text(reader.last_read_time)
