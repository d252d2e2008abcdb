"""Moments of the history, as people write them: a revision, a time, or how long ago."""

import re
from datetime import UTC, datetime, timedelta

import typer

_AGO = re.compile(r"(?:-(?P<minus>.+)|(?P<ago>.+?) ago)")
_LENGTH = re.compile(r"(\d+(?:\.\d+)?) ?(s|m|min|h|d|w)", re.ASCII)
_SECONDS = {"s": 1, "m": 60, "min": 60, "h": 3600, "d": 86400, "w": 604800}
_REVISION = re.compile(r"[0-9]{1,19}")
_EXAMPLES = "a revision such as 1042, a time in UTC such as '2026-11-20 14:00', one of RFC 3339, or '2h ago'"


def moment_of(text: str, option: str = "--as-of") -> int | datetime | None:
    """Return the moment that ``text`` names, or None for nothing. Raises BadParameter.

    A whole number is a revision. A time without a zone is in UTC, as in everything that the command prints.
    """
    if not text:
        return None
    if _REVISION.fullmatch(text):
        return _revision(text, option)
    return time_of(text, option)


def time_of(text: str, option: str) -> datetime | None:
    """Return the time that ``text`` names, or None for nothing. Raises BadParameter."""
    if not text:
        return None
    ago = _AGO.fullmatch(text)
    length = _LENGTH.fullmatch(ago["minus"] or ago["ago"]) if ago else None
    try:
        if length:
            return datetime.now(UTC) - timedelta(seconds=float(length[1]) * _SECONDS[length[2]])
        time = datetime.fromisoformat(text)
    except (ValueError, OverflowError):
        raise typer.BadParameter(f"{text!r} must be {_EXAMPLES}", param_hint=option) from None
    return time if time.tzinfo else time.replace(tzinfo=UTC)


def _revision(text: str, option: str) -> int:
    revision = int(text)
    if revision >= 2**63:
        raise typer.BadParameter(f"the revision must be at most {2**63 - 1}", param_hint=option)
    return revision
