"""The rounds: each subject right after the no-op of its transport, time and again, so that both see one machine."""

import itertools
import sys
from collections import defaultdict
from collections.abc import Callable
from dataclasses import dataclass, field

from tests.bench import cores
from tests.bench.children import Child, cpu_seconds
from tests.bench.generators import Load, LoadFailed
from tests.bench.layers import LayerCheck, WrongLayer


@dataclass(frozen=True, slots=True)
class Run:
    """One run: what the generator saw, and the processor time that it took, in seconds."""

    load: Load
    server_cpu: float
    engines_cpu: float

    @property
    def busy(self) -> float:
        """How much of its core the side of the server used."""
        return (self.server_cpu + self.engines_cpu) / self.load.seconds

    @property
    def server_microseconds(self) -> float:
        """Processor time of the server for one call."""
        return self.server_cpu / self.load.calls * 1e6

    @property
    def engines_microseconds(self) -> float:
        """Processor time of PostgreSQL and Redis for one call."""
        return self.engines_cpu / self.load.calls * 1e6


@dataclass(frozen=True, slots=True)
class Row:
    """What is measured, and with which generator."""

    generator: str
    transport: str
    what: str


@dataclass(frozen=True, slots=True)
class Side:
    """A server and how it is called."""

    server: Child
    load: Callable[[], Load]
    check: LayerCheck | None = None


@dataclass(frozen=True, slots=True)
class Subject:
    """One thing to measure, and the no-op that it is compared with."""

    row: Row
    noop: Side
    side: Side
    warm_up: Callable[[], object]


@dataclass
class Results:
    """Pairs of runs, the no-op first; and what was refused, and why."""

    pairs: dict[Row, list[tuple[Run, Run]]] = field(default_factory=lambda: defaultdict(list))
    refused: dict[Row, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Meter:
    """Measures: ``engines`` are the processes behind the servers, ``core`` is where the generators run."""

    engines: tuple[int, ...]
    core: int | None

    def measure(self, subjects: list[Subject], rounds: int) -> Results:
        """Go round. What has failed once is not tried again, and has no figures."""
        results = Results()
        with cores.pinned(self.core):
            for number, subject in itertools.product(range(rounds), subjects):
                if subject.row in results.refused:
                    continue
                _progress(f"round {number + 1} of {rounds}: {' · '.join(_texts(subject.row))}")
                self._try(subject, results, first=number == 0)
        _progress("")
        return results

    def _try(self, subject: Subject, results: Results, *, first: bool) -> None:
        try:
            if first:
                subject.warm_up()
            results.pairs[subject.row].append((self._run(subject.noop), self._run(subject.side)))
        except (WrongLayer, LoadFailed) as error:
            results.pairs.pop(subject.row, None)
            results.refused[subject.row] = str(error)

    def _run(self, side: Side) -> Run:
        if side.check:
            side.check.begin()
        server = [side.server.process.pid]
        before = cpu_seconds(server), cpu_seconds(self.engines)
        seen = side.load()
        after = cpu_seconds(server), cpu_seconds(self.engines)
        if side.check:
            side.check.end()
        return Run(seen, after[0] - before[0], after[1] - before[1])


def _texts(row: Row) -> tuple[str, str, str]:
    return row.transport, row.what, row.generator


def _progress(text: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\033[K{text}")
        sys.stderr.flush()
