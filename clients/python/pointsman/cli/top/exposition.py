"""Reads the text format of Prometheus, and what counters and histograms say between two readings.

https://prometheus.io/docs/instrumenting/exposition_formats/#text-based-format
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field

_SAMPLE = re.compile(r'([a-zA-Z_:][\w:]*)(?:\{((?:[^"}]|"(?:[^"\\]|\\.)*")*)\})?[ \t]+(\S+)(?:[ \t]+-?\d+)?', re.ASCII)
_LABEL = re.compile(r'(\w+)="((?:[^"\\]|\\.)*)"', re.ASCII)
_ESCAPE = re.compile(r"\\(.)")


@dataclass(frozen=True, slots=True)
class Sample:
    """One line: its labels and its value."""

    labels: Mapping[str, str]
    value: float

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether it has all of ``labels``."""
        return labels.items() <= self.labels.items()


@dataclass(frozen=True, slots=True)
class Reading:
    """What a server exposed at one time, in seconds of a monotonic clock."""

    samples: Mapping[str, list[Sample]] = field(default_factory=dict)
    at: float = 0.0

    def of(self, name: str, **labels: str) -> list[Sample]:
        """Return the samples of a metric that have these labels."""
        return [sample for sample in self.samples.get(name, ()) if sample.matches(labels)]

    def total(self, name: str, **labels: str) -> float | None:
        """Return the sum of these samples; None if there are none."""
        found = self.of(name, **labels)
        return sum(sample.value for sample in found) if found else None

    def values(self, name: str, label: str) -> list[str]:
        """Return the values of a label, in order."""
        return sorted({sample.labels[label] for sample in self.of(name) if label in sample.labels})


def parsed(text: str, at: float) -> Reading:
    """Read an exposition. Lines that are not understood are left out."""
    samples: dict[str, list[Sample]] = defaultdict(list)
    for line in text.splitlines():
        match = None if line.startswith("#") else _SAMPLE.fullmatch(line.strip())
        value = _number(match[3]) if match else None
        if match and value is not None:
            samples[match[1]].append(Sample(dict(_labels(match[2] or "")), value))
    return Reading(dict(samples), at)


def _labels(text: str) -> Iterator[tuple[str, str]]:
    for name, value in _LABEL.findall(text):
        yield name, _ESCAPE.sub(lambda match: "\n" if match[1] == "n" else match[1], value)


def _number(text: str) -> float | None:
    try:
        return float(text)
    except ValueError:
        return None


@dataclass(frozen=True, slots=True)
class Span:
    """What happened between two readings."""

    before: Reading
    after: Reading

    @property
    def seconds(self) -> float:
        """How long it was."""
        return self.after.at - self.before.at

    def increase(self, name: str, **labels: str) -> float | None:
        """Return by how much counters grew; None if one of the readings has none. A restart counts from zero."""
        before, after = self.before.total(name, **labels), self.after.total(name, **labels)
        if after is None:
            return None
        # A label that is new has begun at zero, unless nothing of this metric was known before.
        grown = after - (before or 0.0)
        return grown if grown >= 0 else after

    def rate(self, name: str, **labels: str) -> float | None:
        """Return the growth a second."""
        grown = self.increase(name, **labels)
        return grown / self.seconds if grown is not None and self.seconds > 0 else None

    def share(self, name: str, label: str, counted: set[str], **labels: str) -> float | None:
        """Return the part of the growth where ``label`` is one of ``counted``; None if nothing grew."""
        grown = {value: self.increase(name, **labels, **{label: value}) for value in self.after.values(name, label)}
        total = sum(each or 0.0 for each in grown.values())
        return sum(grown[value] or 0.0 for value in grown.keys() & counted) / total if total else None

    def quantile(self, share: float, name: str, **labels: str) -> float | None:
        """Return the upper bound of the bucket of a histogram in which this share of what was observed lies.

        None if nothing was observed; infinite beyond the last bucket.
        """
        buckets = sorted(
            (float(bound), self.increase(f"{name}_bucket", **labels, le=bound) or 0.0)
            for bound in self.after.values(f"{name}_bucket", "le")
        )
        total = buckets[-1][1] if buckets else 0.0
        if total <= 0:
            return None
        return next((bound for bound, count in buckets if count >= share * total), math.inf)
