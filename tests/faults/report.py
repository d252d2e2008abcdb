"""The table of a run: what each fault did to reads and writes."""

import math
from bisect import bisect_right
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.faults.checking import Verdict, Violation
from tests.faults.faulting import Injected
from tests.faults.history import Call, History
from tests.faults.table import FAULTS
from tests.faults.traffic.records import Observed
from tests.faults.xds.records import Observed as ObservedByXds

HEADER = (
    "| fault | injected | caught | operations | reads answered | reads unavailable (s) | writes unavailable (s) "
    "| stale reads | staleness p50 / p99 / max (ms) | violations |\n|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|"
)
NO_FAULT = "(no fault)"
WINDOW_SECONDS = 5
MOST_WRITERS = 16


@dataclass(slots=True)
class Line:
    """What is known of one fault."""

    injected: int = 0
    caught: int | None = None
    operations: int = 0
    reads: int = 0
    answered: int = 0
    read_seconds: set[int] = field(default_factory=set)
    write_seconds: set[int] = field(default_factory=set)
    staleness: list[float] = field(default_factory=list)
    violations: int = 0

    def count(self, call: Call, cached: frozenset[str] | None) -> None:
        """Count one call; with ``cached`` only reads of those keys count as reads."""
        self.operations += call.keys
        second = int(call.call)
        if call.kind == "write" and not call.answered:
            self.write_seconds.add(second)
        if call.kind == "read" and (cached is None or call.key in cached):
            self.reads += 1
            self.answered += call.answered
            if not call.answered:
                self.read_seconds.add(second)


class ClockEviction:
    """Says which fault was on at a time, or the last one before it."""

    def __init__(self, injected: Sequence[Injected]) -> None:
        self._injected = injected
        self._begins = [each.begin for each in injected]

    def during(self, moment: float) -> Injected | None:
        """Return the fault that was on."""
        last = self.since(moment)
        return last if last and moment <= last.end else None

    def since(self, moment: float) -> Injected | None:
        """Return the last fault that began before."""
        place = bisect_right(self._begins, moment)
        return self._injected[place - 1] if place else None


class Writing:
    """Says which keys were being written; with every key its siblings, which an exclusive activation changes too."""

    def __init__(self, calls: Sequence[Call]) -> None:
        self._intervals: dict[str, list[tuple[float, float]]] = defaultdict(list)
        for call in calls:
            if call.kind == "write":
                self._intervals[_family(call.key)].append((call.call, call.ret))
        for intervals in self._intervals.values():
            intervals.sort()

    def still_cached(self, on: Injected, read: Call) -> frozenset[str]:
        """Give the keys that a read finds in Redis while PostgreSQL is out of order: at most those of ``on``."""
        if read.call > on.expires or (on.fault.writes and self._overlaps(read)):
            return frozenset()
        return on.cached

    def _overlaps(self, read: Call) -> bool:
        intervals = self._intervals.get(_family(read.key), [])
        last = bisect_right(intervals, (read.ret, math.inf))
        # A writer waits for its answer: at most so many writes began before and are not over.
        return any(ret >= read.call for _, ret in intervals[max(0, last - MOST_WRITERS) : last])


def _family(key: str) -> str:
    return key.rpartition("/")[0]


def lines(history: History, injected: Sequence[Injected], verdict: Verdict) -> dict[str, Line]:
    """Add up by fault. Availability counts while it is on, staleness and violations until the next one."""
    possible = [fault for fault in FAULTS if fault.brokers == 1 or any(each.fault is fault for each in injected)]
    table = {fault.name: Line() for fault in possible} | {NO_FAULT: Line()}
    places, writing = ClockEviction(injected), Writing(history.calls)
    for each in injected:
        line = table[each.fault.name]
        line.injected += 1
        if each.caught is not None:
            line.caught = (line.caught or 0) + each.caught
    for call in history.calls:
        on = places.during(call.call)
        cached = writing.still_cached(on, call) if on and on.fault.component == "PostgreSQL" else None
        table[on.fault.name if on else NO_FAULT].count(call, cached)
    for moment, behind in verdict.staleness:
        table[_name(places.since(moment))].staleness.append(behind)
    for violation in verdict.violations:
        table[_name(places.since(violation.at))].violations += 1
    return table


def _name(injected: Injected | None) -> str:
    return injected.fault.name if injected else NO_FAULT


def render(table: dict[str, Line]) -> str:
    """Write the table in Markdown."""
    return "\n".join([HEADER, *(_row(name, line) for name, line in table.items())])


def _row(name: str, line: Line) -> str:
    share = f"{100 * line.answered / line.reads:.3f} %" if line.reads else "-"
    late = percentiles(line.staleness)
    seconds = f"{len(line.read_seconds)} | {len(line.write_seconds)}"
    caught = "" if line.caught is None else line.caught
    counts = f"{line.injected or ''} | {caught} | {line.operations} | {share} | {seconds} | {len(line.staleness)}"
    return f"| {name} | {counts} | {late} | {line.violations} |"


def percentiles(values: Iterable[float]) -> str:
    """Write p50, p99 and maximum in ms."""
    ordered = sorted(values)
    if not ordered:
        return "-"
    picks = (ordered[len(ordered) // 2], ordered[int(len(ordered) * 0.99)], ordered[-1])
    return " / ".join(f"{1000 * value:.0f}" for value in picks)


def availability(table: dict[str, Line], component: str) -> tuple[int, int]:
    """Add up reads and answered reads of the faults of one component."""
    chosen = [table[fault.name] for fault in FAULTS if fault.component == component and fault.name in table]
    return sum(line.reads for line in chosen), sum(line.answered for line in chosen)


def missed(table: dict[str, Line]) -> list[str]:
    """Name the faults that never caught what they are about."""
    return [name for name, line in table.items() if line.injected and line.caught == 0]


def of_traffic(observed: Observed, calls: Sequence[Call], staleness: Sequence[tuple[float, float]]) -> str:
    """Say what change sets, reverts and selections there were."""
    sets = Counter((each.target is not None, each.write.answer) for each in observed.sets)
    kinds = [
        f"{name} {sum(count for (kind, _), count in sets.items() if kind == revert)} "
        f"({sets[revert, 'ok']} made, {sets[revert, 'refused']} refused, {sets[revert, 'unknown']} unknown)"
        for revert, name in ((False, "commits"), (True, "reverts"))
    ]
    rules = Counter(each.rule or each.state for each in observed.selected)
    shares = ", ".join(f"{name} {count}" for name, count in sorted(rules.items()))
    asked = [call for call in calls if call.kind == "select"]
    return (
        f"{', '.join(kinds)}; selections {len(observed.selected)} ({shares})\n"
        f"selections answered at any time: {sum(call.answered for call in asked)} of {len(asked)}; "
        f"staleness of those that missed a write, ms: {percentiles(behind for _, behind in staleness)}"
    )


def of_xds(observed: ObservedByXds) -> str:
    """Say what calls of xDS clients there were, and how soon after a fault was healed they had a new cut-over."""
    clients = [
        f"{client} {sum(calls.values())} ({', '.join(f'{code} {count}' for code, count in sorted(calls.items()))})"
        for client, calls in observed.calls.items()
    ]
    seen = sum(len(answers) for answers in observed.answers.values())
    late = percentiles(each.end - each.healed for each in observed.disturbances if not each.missing)
    return (
        f"xDS clients, calls answered: {', '.join(clients)}; {seen} changes of the answer\n"
        f"xDS clients follow after a fault, ms: {late}"
    )


def failures(history: History) -> dict[str, int]:
    """Count the attempts that failed, by their kind and status, and the limit that was reached."""
    return dict(sorted(Counter(f"{each.kind} {each.code} {each.limit}".strip() for each in history.failures).items()))


def slowest_rate(calls: Sequence[Call], begin: float, end: float) -> float:
    """Give the lowest rate of calls ended in any ``WINDOW_SECONDS`` of the run, per second."""
    counts = [0] * max(1, int((end - begin) // WINDOW_SECONDS))
    for call in calls:
        place = int((call.ret - begin) // WINDOW_SECONDS)
        if 0 <= place < len(counts):
            counts[place] += 1
    return min(counts) / WINDOW_SECONDS


def explain(violations: Sequence[Violation], most: int = 20) -> str:
    """Show violations, at most so many of each rule."""
    shown: dict[str, int] = {}
    texts = []
    for violation in violations:
        kind = violation.rule.split(" by ")[0]
        shown[kind] = shown.get(kind, 0) + 1
        if shown[kind] <= most:
            texts.append(f"promise {violation.promise}: {violation.rule}\n    at {violation.at:.3f}: {violation.text}")
    return "\n".join([*texts, *(f"{count} × {kind}" for kind, count in shown.items())])
