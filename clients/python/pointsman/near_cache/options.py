"""How a near-cache behaves."""

import math
import os
import socket
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from pointsman.near_cache.table.view import Filter
from pointsman.rules import KEY_PART, KEY_PART_RULE

OnStale = Literal["call", "serve", "raise"]

MAX_STALE_SECONDS = 30.0
"""Longer than the longest pause between two attempts to reconnect."""
NAME_LENGTH = 128


@dataclass(frozen=True, slots=True)
class Options:
    """The arguments of ``Client.cached``, checked."""

    filters: tuple[Filter, ...]
    path: Path | None
    max_stale: float
    on_stale: OnStale
    name: str


def options(
    tenants: Iterable[str] | None,
    service: str,
    env: str,
    path: str | os.PathLike[str] | None,
    max_stale: float,
    on_stale: OnStale,
    name: str,
) -> Options:
    """Check the arguments of ``Client.cached``. Raises ValueError, and TypeError for a text instead of tenants."""
    if isinstance(tenants, str):
        raise TypeError("tenants must be a list of tenants, not a text")
    names = [""] if tenants is None else list(dict.fromkeys(tenants))
    if not names or (tenants is not None and "" in names):
        raise ValueError("tenants must name at least one tenant; leave it out for all of them")
    for part, values in (("tenants", names), ("service", [service]), ("env", [env])):
        if not all(value == "" or KEY_PART.fullmatch(value) for value in values):
            raise ValueError(f"{part} {KEY_PART_RULE}")
    if math.isnan(max_stale) or max_stale <= 0:
        raise ValueError(f"max_stale must be a positive number of seconds, not {max_stale}")
    if on_stale not in get_args(OnStale):
        raise ValueError(f"on_stale must be one of {', '.join(get_args(OnStale))}, not {on_stale!r}")
    return Options(
        filters=tuple(Filter(tenant, service, env) for tenant in names),
        path=None if path is None else Path(path),
        max_stale=max_stale,
        on_stale=on_stale,
        name=(name or _default_name())[:NAME_LENGTH],
    )


def _default_name() -> str:
    """Return the program and the host: what people recognise."""
    program = Path(sys.argv[0]).name if sys.argv and sys.argv[0] else "python"
    if program == "__main__.py":
        program = Path(sys.argv[0]).parent.name
    return f"{program}@{socket.gethostname()}"
