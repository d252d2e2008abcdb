"""Spans, for every room: they cost nothing while tracing is off, and nothing of OpenTelemetry is loaded then.

A span is recorded if what caused it is: the call, or a change. So what a server does by itself makes no traces.
"""

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from enum import StrEnum
from typing import Protocol, Self

from pointsman_server.telemetry.tracing.trace_context import NO_TRACE, TraceContext

Attributes = Mapping[str, str | int | float | bool]


class Kind(StrEnum):
    """The kinds of spans of OpenTelemetry."""

    INTERNAL = "INTERNAL"
    SERVER = "SERVER"
    CLIENT = "CLIENT"
    PRODUCER = "PRODUCER"
    CONSUMER = "CONSUMER"


class Span(Protocol):
    """A span: as a context manager it is the current one, and ends with the block.

    ``recording``: whether anything is kept of it.
    """

    @property
    def recording(self) -> bool: ...

    @property
    def context(self) -> TraceContext:
        """What is sent to those that go on with the trace."""

    def set(self, attributes: Attributes) -> None:
        """Add attributes."""

    def link(self, context: TraceContext) -> None:
        """Add a link to a span of another trace."""

    def fail(self, description: str) -> None:
        """Mark it as failed. ``description`` must hold no secret."""

    def __enter__(self) -> Self: ...

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None: ...


class Caused(Protocol):
    """What a call has caused, with the context of that."""

    @property
    def traceparent(self) -> str: ...

    @property
    def tracestate(self) -> str: ...


class NoSpan:
    """A span of which nothing is kept."""

    recording = False
    context = NO_TRACE

    def set(self, attributes: Attributes) -> None:
        """Do nothing."""

    def link(self, context: TraceContext) -> None:
        """Do nothing."""

    def fail(self, description: str) -> None:
        """Do nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _kind: object, error: BaseException | None, _traceback: object) -> None:
        pass


NO_SPAN = NoSpan()


class Tracer(Protocol):
    """Makes spans."""

    def current(self) -> Span | None:
        """Return the current span of this task, if it is recorded."""

    def server(self, name: str, parent: TraceContext, attributes: Attributes) -> Span:
        """Begin the span of a call; ``parent`` is that of its caller. The sampler decides whether it is recorded."""

    def child(self, name: str, kind: Kind, attributes: Attributes) -> Span:
        """Begin a span under the current one."""

    def of_many(self, name: str, kind: Kind, causes: Sequence[TraceContext], attributes: Attributes) -> Span:
        """Begin the span of work that has several causes: under the first one that is sampled, with links to all."""

    def resumed(self, span: Span) -> AbstractContextManager[object]:
        """Make ``span`` the current one of a block, without ending it."""

    def ids(self) -> tuple[str, str] | None:
        """Return the ids of the current trace and span, if there is one, recorded or not."""


class _Active:
    tracer: Tracer | None = None


_active = _Active()


def use(tracer: Tracer | None) -> None:
    """Turn tracing on; None turns it off."""
    _active.tracer = tracer


def is_on() -> bool:
    return _active.tracer is not None


def current() -> Span | None:
    """Return the current span of this task, if it is recorded."""
    tracer = _active.tracer
    return None if tracer is None else tracer.current()


def server(name: str, parent: TraceContext, attributes: Attributes) -> Span:
    """Begin the span of a call."""
    tracer = _active.tracer
    return NO_SPAN if tracer is None else tracer.server(name, parent, attributes)


def span(name: str, kind: Kind = Kind.INTERNAL, attributes: Attributes | None = None) -> Span:
    """Begin a span under the current one, if that is recorded."""
    tracer = _active.tracer
    return NO_SPAN if tracer is None else tracer.child(name, kind, attributes or {})


def of_many(name: str, kind: Kind, causes: Sequence[TraceContext], attributes: Attributes | None = None) -> Span:
    """Begin the span of work that has several causes, if one of them is sampled."""
    tracer = _active.tracer
    return NO_SPAN if tracer is None else tracer.of_many(name, kind, causes, attributes or {})


def of_changes(name: str, kind: Kind, changes: Iterable[Caused], attributes: Attributes | None = None) -> Span:
    """Begin the span of work on changes, if what caused one of them is sampled."""
    if _active.tracer is None:
        return NO_SPAN
    causes = [TraceContext(change.traceparent, change.tracestate) for change in changes]
    return _active.tracer.of_many(name, kind, causes, attributes or {})


def resumed(span: Span | None) -> AbstractContextManager[object]:
    """Make ``span``, which another task began, the current one of a block."""
    tracer = _active.tracer
    return NO_SPAN if tracer is None or span is None else tracer.resumed(span)


def ids() -> tuple[str, str] | None:
    """Return the ids of the current trace and span, if there is one, recorded or not."""
    tracer = _active.tracer
    return None if tracer is None else tracer.ids()


def exemplar() -> dict[str, str] | None:
    """Return what a metric names as an example: the current span, if it is recorded."""
    if _active.tracer is None or _active.tracer.current() is None:
        return None
    found = _active.tracer.ids()
    return {"trace_id": found[0], "span_id": found[1]} if found else None
