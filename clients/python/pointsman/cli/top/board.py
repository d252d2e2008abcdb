"""What ``pointsman top`` knows, and how it reads. Pure: no calls, and nothing of the screen."""

import math
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import timedelta

from pointsman.cli.top.exposition import Reading, Span
from pointsman.results import Change, ChangeKind
from pointsman.watchers import Propagation

MOST_CHANGES = 200
MOST_BEHIND = 5
MOST_RATES = 120
"""Readings of which the rate is drawn."""
READS = ("Resolve", "BatchResolve", "Select", "BatchSelect")
FAILURES = ("DEADLINE_EXCEEDED", "INTERNAL", "RESOURCE_EXHAUSTED", "UNAVAILABLE", "UNKNOWN")
METRICS, CHANGES, HISTORY, WATCHERS = "metrics", "changes", "history", "watchers"


@dataclass(frozen=True, slots=True)
class Missing:
    """A source does not answer, and why; "": it does again."""

    source: str
    why: str


@dataclass(frozen=True, slots=True)
class Table:
    """How many routes there are as of a revision, and ``age`` seconds ago that was all."""

    routes: int | None
    revision: int
    age: float | None = None


News = Reading | Missing | Table | Propagation | tuple[Change, ...]
Lines = list[tuple[str, str]]


class Board:
    """Takes news, and says what to show."""

    def __init__(self) -> None:
        self.revision = 0
        self.changes: deque[Change] = deque(maxlen=MOST_CHANGES)
        self.rates: deque[float] = deque(maxlen=MOST_RATES)
        self.missing: dict[str, str] = {}
        self._span: Span | None = None
        self._reading: Reading | None = None
        self._routes: int | None = None
        self._routes_as_of = 0
        self._current_at: float | None = None
        self._propagation: Propagation | None = None

    def take(self, news: News) -> None:
        """Take what a source has found out."""
        if isinstance(news, Missing):
            self._take_missing(news)
        elif isinstance(news, Reading):
            self.missing.pop(METRICS, None)
            self._span = Span(self._reading, news) if self._reading else None
            self._reading = news
            self.rates.append(self._reads() or 0.0)
        elif isinstance(news, Table):
            self._take_table(news)
        elif isinstance(news, Propagation):
            self.missing.pop(WATCHERS, None)
            self._propagation = news
        else:
            self._take_changes(news)

    def _take_missing(self, news: Missing) -> None:
        if not news.why:
            self.missing.pop(news.source, None)
            return
        self.missing[news.source] = news.why
        if news.source == METRICS:
            self._span = self._reading = None
        elif news.source == WATCHERS:
            self._propagation = None

    def _take_table(self, news: Table) -> None:
        self.revision = news.revision
        if news.routes is not None:
            self._routes, self._routes_as_of = news.routes, news.revision
            if self.changes and self.changes[0].revision > news.revision:
                self.changes.clear()  # they are of an epoch that is over
        if news.age is not None:
            self._current_at = time.monotonic() - news.age

    def _take_changes(self, changes: Iterable[Change]) -> None:
        """Keep the newest first. The same may come twice: from the history and from the stream."""
        for change in changes:
            if self.changes and change.revision <= self.changes[0].revision:
                continue
            self.changes.appendleft(change)
            self.revision = max(self.revision, change.revision)
            if self._routes is not None and change.revision > self._routes_as_of:
                self._routes += {ChangeKind.CREATED: 1, ChangeKind.DELETED: -1}.get(change.kind, 0)

    # What to show

    def calls(self) -> Lines:
        """Return the rates of calls, and how long they take."""
        span = self._span
        if span is None:
            return []
        failed = sum(span.rate("grpc_server_handled_total", grpc_code=code) or 0.0 for code in FAILURES)
        return [
            *((f"{method} /s", rate_text(_started(span, method))) for method in READS),
            ("writes /s", rate_text(span.rate("pointsman_write_requests_total", outcome="ok"))),
            ("failed /s", rate_text(failed)),
            *((f"Resolve p{share:.0%}".rstrip("%"), seconds_text(_slowness(span, share))) for share in (0.5, 0.99)),
        ]

    def caches(self) -> Lines:
        """Return the part of the lookups that each layer answered."""
        span, name = self._span, "pointsman_cache_lookups_total"
        if span is None:
            return []
        layers = span.after.values(name, "layer")
        return [
            (f"{layer} hits", share_text(span.share(name, "outcome", {"hit", "negative"}, layer=layer)))
            for layer in layers
        ]

    def lags(self) -> Lines:
        """Return what is behind, and what is down."""
        lines = []
        if self._current_at is not None:
            lines.append(("this view", seconds_text(max(0.0, time.monotonic() - self._current_at))))
        reading = self._reading
        if reading is None:
            return lines
        lines += [
            ("feed", count_text(reading.total("pointsman_feed_lag_revisions"), "revision")),
            ("relay", count_text(reading.total("pointsman_relay_lag_revisions"), "revision")),
        ]
        for consumer in reading.values("pointsman_consumer_lag_messages", "consumer"):
            lag = reading.total("pointsman_consumer_lag_messages", consumer=consumer)
            lines.append((f"{consumer} consumer", count_text(lag, "message")))
        down = [
            sample.labels.get("dependency", "") for sample in reading.of("pointsman_dependency_up") if sample.value == 0
        ]
        return [*lines, ("down", " ".join(down) or "nothing")]

    def watchers(self) -> Lines:
        """Return how many watch, and who has not got the revision."""
        lines: Lines = []
        streams = self._reading.total("pointsman_watchers") if self._reading else None
        if streams is not None:
            lines.append(("streams here", f"{streams:.0f}"))
        found = self._propagation
        if found is None:
            return lines
        of_all = "all servers" if found.all_servers else "this server"
        lines.append((f"watchers ({of_all})", str(found.watcher_count)))
        lines.append((f"at revision {self.revision}", str(found.applied_count)))
        lines += [
            (f"  {watcher.name or watcher.watcher_id}", f"at {watcher.applied_revision}")
            for watcher in found.behind[:MOST_BEHIND]
        ]
        return lines

    def summary(self) -> str:
        """Return one line about the whole."""
        routes = f"{self._routes} routes" if self._routes is not None else ""
        return ", ".join(filter(None, (routes, f"revision {self.revision}" if self.revision else "")))

    def absences(self) -> list[str]:
        """Say what is missing, and why."""
        return [f"no {source}: {why}" for source, why in sorted(self.missing.items())]

    def _reads(self) -> float | None:
        return sum(_started(self._span, method) or 0.0 for method in READS) if self._span else None


def _started(span: Span, method: str) -> float | None:
    return span.rate("grpc_server_started_total", grpc_method=method)


def _slowness(span: Span, share: float) -> float | None:
    return span.quantile(share, "grpc_server_handling_seconds", grpc_method="Resolve")


def rate_text(rate: float | None) -> str:
    """Return a number of events a second."""
    return "-" if rate is None else f"{rate:,.0f}" if rate >= 100 else f"{rate:.1f}"


def share_text(share: float | None) -> str:
    """Return a part of a whole."""
    return "-" if share is None else f"{share:.1%}"


def seconds_text(seconds: float | None) -> str:
    """Return a length of time, in the unit that suits it."""
    if seconds is None:
        return "-"
    if math.isinf(seconds):
        return "over all buckets"
    if seconds >= 60:
        return str(timedelta(seconds=round(seconds)))
    return f"{seconds:.1f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def count_text(count: float | None, noun: str) -> str:
    """Return a number of things."""
    return "-" if count is None else f"{count:,.0f} {noun}{'' if count == 1 else 's'}"
