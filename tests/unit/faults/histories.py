"""Histories of families for the tests of what checks them."""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from tests.faults.history import Row, text_of_traffic

F = "splits/s0/prod"
EPOCH = "now"
Step = tuple[str, str, Mapping[str, Any] | None]  # key, kind, what it is afterwards


def route(url: str = "u", *, active: bool = True, **labels: str) -> dict[str, Any]:
    return {"url": url, "active": active, "labels": labels}


def traffic(*weights: int, fallbacks: Sequence[str] = ()) -> dict[str, Any]:
    targets = [{"version": f"v{number}", "weight": weight} for number, weight in enumerate(weights)]
    slices = [[f"v{number}", weight] for number, weight in enumerate(weights) if weight]
    return {"targets": targets, "fallbacks": list(fallbacks), "slices": slices}


def rows_of(*sets: tuple[str, Iterable[Step]], epoch: str = EPOCH) -> list[Row]:
    """Make the rows of change sets, each with its request_id, as the store does."""
    rows: list[Row] = []
    state: dict[str, Mapping[str, Any] | None] = {}
    for request_id, steps in sets:
        first, made = len(rows) + 1, list(steps)
        for key, kind, after in made:
            revision = len(rows) + 1
            now = {**after, "revision": revision} if after is not None else None
            row = Row(revision, key, kind, request_id, epoch=epoch, change_set_end=first + len(made) - 1)
            row.change_set_id, row.change_set_size = first, len(made)
            row.before, row.after, state[key] = state.get(key), now, now
            if now:
                row.url = text_of_traffic(now) if row.of_traffic else now["url"]
                row.active = bool(now.get("active"))
            rows.append(row)
    return rows
