"""Counts the watchers that have applied a revision."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import nsmallest

from pointsman_server.events.watch.filters import Filter
from pointsman_server.ports.store import Clock
from pointsman_server.ports.watcher_registry import OpenWatch, RegisteredWatch, WatchName

MOST_BEHIND = 100


@dataclass(frozen=True, slots=True)
class Laggard:
    """A watcher, and the highest ``revision`` that it is known to have applied, or 0."""

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
    watchers: dict[tuple[str, ...], Laggard] = {}
    for name, reached in _by_watch(found, wanted.epoch, of).items():
        # Of a client with several filters, the one that is furthest behind.
        known = watchers.get(name[:2])
        if known is None or reached.revision < known.revision:
            watchers[name[:2]] = reached
    behind = [reached for reached in watchers.values() if reached.revision < wanted.revision]
    # Those who have watched for longest are the most likely to hang.
    first = nsmallest(MOST_BEHIND, behind, key=lambda laggard: laggard.watch.since)
    return Propagation(len(watchers), len(watchers) - len(behind), first, all_servers)


def overlap(name: WatchName, of: Filter) -> bool:
    """Return whether a key can match both the filter of the watch and ``of``."""
    return all(not mine or not theirs or mine == theirs for mine, theirs in zip(name[2:], of[:3], strict=True))


def _by_watch(found: Iterable[RegisteredWatch], epoch: str, of: Filter) -> dict[WatchName, Laggard]:
    """Return how far each watch is, by its latest stream and the best of its reports."""
    watches: dict[WatchName, Laggard] = {}
    for entry in found:
        watch, applied = entry.watch, entry.applied
        if not overlap(watch.name, of):
            continue
        revision = applied.revision if applied is not None and applied.epoch == epoch else 0
        known = watches.get(watch.name)
        if known is not None:
            revision = max(revision, known.revision)
            watch = max(watch, known.watch, key=lambda each: each.since)
        watches[watch.name] = Laggard(watch, revision)
    return watches
