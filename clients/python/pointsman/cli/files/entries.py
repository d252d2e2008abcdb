"""One entry of a file of routes, whatever the format of the file: checked before anything is sent."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import ClassVar, TypeVar

from pointsman.cli.files.problems import Problem
from pointsman.errors import InvalidArgument
from pointsman.keys import RouteKey
from pointsman.rules import KEY_PARTS, LABELS_MAX_COUNT, label_problem, url_problem

T = TypeVar("T")

_NO_TEXT = "must be text, in quotes"
_PARTS = frozenset(KEY_PARTS)
_FIELDS = _PARTS | {"key", "url", "active", "labels"}


@dataclass(frozen=True, slots=True)
class RawEntry:
    """An entry as read: its line, its fields, and the lines of those fields that have one of their own."""

    line: int
    fields: Mapping[str, object]
    lines: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Entry:
    """The desired state of a route. ``active`` or ``labels`` None: as it is; a new route is active, without labels."""

    line: int
    key: RouteKey
    url: str
    active: bool | None
    labels: Mapping[str, str] | None
    expected_revision: ClassVar[int] = 0


def checked(raws: Iterable[RawEntry | Problem]) -> Iterator[Entry | Problem]:
    """Turn what was read into entries, in its order; each bad one, and each key that came before, into a Problem."""
    first_lines: dict[RouteKey, int] = {}
    for raw in raws:
        entry = raw if isinstance(raw, Problem) else _entry(raw)
        if isinstance(entry, Entry):
            if entry.key in first_lines:
                text = f"{entry.key} is given twice: first in line {first_lines[entry.key]}"
                entry = Problem(entry.line, text)
            else:
                first_lines[entry.key] = entry.line
        yield entry


class FieldError(Exception):
    """A field that cannot be used: its name, and why."""

    def __init__(self, name: str, why: str) -> None:
        super().__init__(f"{name}: {why}")
        self.name = name


def _entry(raw: RawEntry) -> Entry | Problem:
    try:
        _refuse_unknown(raw.fields)
        return Entry(
            line=raw.line,
            key=_key(raw.fields),
            url=_url(raw.fields),
            active=_optional(raw.fields, "active", _active),
            labels=_optional(raw.fields, "labels", _labels),
        )
    except FieldError as bad:
        return Problem(raw.lines.get(bad.name, raw.line), str(bad))


def _refuse_unknown(fields: Mapping[str, object]) -> None:
    if fields.keys() <= _FIELDS:
        return
    for name in fields:
        if name not in _FIELDS:
            raise FieldError(name, "unknown field: an entry has key, url, active and labels")


def _key(fields: Mapping[str, object]) -> RouteKey:
    text = fields.get("key")
    has_parts = not _PARTS.isdisjoint(fields)
    if text is not None and has_parts:
        raise FieldError("key", "give it whole or in its four parts, not both")
    if has_parts:
        text = "/".join(text_field(part, fields.get(part, "")) for part in KEY_PARTS)
    if text is None:
        raise FieldError("key", "must be given, as tenant/service/env/version")
    try:
        return RouteKey.parse(text_field("key", text))
    except InvalidArgument as error:
        raise FieldError("key", error.violations[0].description) from error


def text_field(name: str, value: object) -> str:
    if not isinstance(value, str):
        raise FieldError(name, _NO_TEXT)
    return value


def _url(fields: Mapping[str, object]) -> str:
    url = fields.get("url")
    if url is None or url == "":
        raise FieldError("url", "must be given")
    url = text_field("url", url)
    problem = url_problem(url)
    if problem:
        raise FieldError("url", problem)
    return url


def _optional(fields: Mapping[str, object], name: str, read: Callable[[object], T]) -> T | None:
    value = fields.get(name)
    return None if value is None else read(value)


def _active(value: object) -> bool:
    if not isinstance(value, bool):
        raise FieldError("active", "must be true or false")
    return value


def _labels(value: object) -> Mapping[str, str]:
    if not isinstance(value, Mapping):
        raise FieldError("labels", "must be names with values")
    if len(value) > LABELS_MAX_COUNT:
        raise FieldError("labels", f"must be at most {LABELS_MAX_COUNT}")
    for name, text in value.items():
        if not isinstance(name, str) or not isinstance(text, str):
            raise FieldError("labels", f"label {name}: the value {_NO_TEXT}")
    problem = _labels_problem(tuple(value.items()))
    if problem:
        raise FieldError("labels", problem)
    return dict(value)


@lru_cache(1024)
def _labels_problem(pairs: tuple[tuple[str, str], ...]) -> str | None:
    # Cached: most routes of a large file share their labels with many others.
    return next((problem for name, text in pairs if (problem := label_problem(name, text))), None)
