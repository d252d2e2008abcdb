"""Counts the watchers that have applied a revision."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from pointsman_server.events.receipts.local_watches import has_applied
from pointsman_server.events.watch.filters import Filter
from pointsman_server.ports.store import Clock
from pointsman_server.ports.watcher_registry import OpenWatch, RegisteredWatch, WatchName

MOST_BEHIND = 100


@dataclass(frozen=True, slots=True)
class Laggard:
    """A watcher that is not known to have applied a revision; ``revision`` is what it has applied, or 0."""

    watch: OpenWatch
    revision: int


@dataclass(frozen=True, slots=True)
class Propagation:
    """How many watchers there are, how many have applied a revision, and up to MOST_BEHIND of the others.

    ``all_servers`` is False where only the watchers of this server are known.
    """

    watchers: int
    applied: int
    behind: Sequence[Laggard]
    all_servers: bool


def count(found: Iterable[RegisteredWatch], wanted: Clock, of: Filter, *, all_servers: bool = True) -> Propagation:
    """Count the watchers with a filter that some key of ``of`` matches.

    A client that watches with several filters is one watcher, and has applied what it has applied for all of them. A
    watch that is open at two servers, because its client has just moved, is one: either server may have its report.
    """
    watches = sorted((entry for entry in found if overlap(entry.watch.name, of)), key=lambda entry: entry.watch.name)
    watchers = applied = 0
    behind: list[Laggard] = []
    for _, of_watcher in groupby(watches, lambda entry: entry.watch.name[:2]):
        laggard = _laggard(of_watcher, wanted)
        watchers += 1
        if laggard is None:
            applied += 1
        else:
            behind.append(laggard)
    # Those who have watched for longest are the most likely to hang.
    behind.sort(key=lambda laggard: laggard.watch.since)
    return Propagation(watchers, applied, behind[:MOST_BEHIND], all_servers)


def overlap(name: WatchName, of: Filter) -> bool:
    """Return whether a key can match both the filter of the watch and ``of``."""
    return all(not mine or not theirs or mine == theirs for mine, theirs in zip(name[2:], of, strict=True))


def _laggard(of_watcher: Iterable[RegisteredWatch], wanted: Clock) -> Laggard | None:
    """Return the watch of one watcher that is furthest behind, or None if all have applied what is wanted."""
    last: Laggard | None = None
    for _, of_watch in groupby(of_watcher, lambda entry: entry.watch.name):
        entries = list(of_watch)
        if any(has_applied(entry.applied, wanted) for entry in entries):
            continue
        reached = max((_revision(entry.applied, wanted.epoch) for entry in entries), default=0)
        if last is None or reached < last.revision:
            last = Laggard(max((entry.watch for entry in entries), key=lambda watch: watch.since), reached)
    return last


def _revision(applied: Clock | None, epoch: str) -> int:
    return applied.revision if applied is not None and applied.epoch == epoch else 0
