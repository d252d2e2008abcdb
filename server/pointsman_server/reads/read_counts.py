"""Counts reads by key and subject in the memory of one process, at a fraction of the cost of a read."""

from collections.abc import Callable, Mapping, Sequence
from random import random

# One read of so many is counted when there are many; then it counts for all of them.
MOST_SAMPLED = 64
# After so many counted reads between two calls of ``take``, half as many of the reads that follow are.
COUNTED_AT_ONCE = 128
# A number of reads that is so large that counting it down costs nothing more, and as small as Python adds fastest.
NEVER = 1 << 29
# Pairs of key and subject that wait to be taken; reads of further ones are dropped.
MOST_PAIRS = 100_000

Counts = Mapping[str, Mapping[bytes, int]]
_NOTHING: Mapping[bytes, int] = {}


class ReadCounts:
    """Reads by subject, then by the bytes of the key (``codec.key_to_bytes``).

    Exact while there are few: the callers of interest may be those that read once an hour. When there are many, one of
    up to MOST_SAMPLED is counted, chosen at random, because callers read their keys in turn.

    For each read subtract 1 from ``left``, and call ``sample`` at 0: nothing else happens for most of them.
    """

    __slots__ = ("_counts", "_every", "_on", "_pairs", "_random", "_samples", "_until", "dropped", "left")

    def __init__(self, *, on: bool = True, random: Callable[[], float] = random) -> None:
        """Without ``on`` nothing is counted. ``random`` returns numbers from 0 to 1, without 1."""
        self._on = on
        self._random = random
        self._counts: dict[str, dict[bytes, int]] = {}
        self._pairs = 0
        # Key, subject and weight of the reads that were chosen.
        self._samples: list[tuple[bytes, str, int]] = []
        # How many of them there are when half as many are chosen.
        self._until = COUNTED_AT_ONCE
        self._every = 1
        # Reads that were dropped since ``take``.
        self.dropped = 0
        self.left = 1 if on else NEVER

    def read(self, key: bytes, subject: str) -> None:
        """Count one read, or pass over it."""
        self.left -= 1
        if not self.left:
            self.sample(key, subject)

    def read_many(self, keys: Sequence[bytes], subject: str) -> None:
        """Count one read of each key, or pass over it."""
        place = self.left - 1
        while place < len(keys):
            self.sample(keys[place], subject)
            place += self.left
        self.left = place - len(keys) + 1

    def sample(self, key: bytes, subject: str) -> None:
        """Count a read for all those since the one before, and choose the next one."""
        if not self._on:
            self.left = NEVER
            return
        # Added up later, all at once: one by one, between other work, that takes several times as long.
        samples, every = self._samples, self._every
        samples.append((key, subject, every))
        if len(samples) >= self._until and every < MOST_SAMPLED:
            self._every = every = 2 * every
            self._until += COUNTED_AT_ONCE
        # From 1 to twice that number less 1: on average, so many. ``randrange`` takes ten times as long.
        self.left = 1 + int(self._random() * (2 * every - 1))

    def add(self, key: bytes, subject: str, times: int) -> None:
        """Count reads that are known."""
        of_subject = self._counts.get(subject, _NOTHING)
        before = of_subject.get(key, 0)
        if before:
            self._counts[subject][key] = before + times
        elif self._pairs < MOST_PAIRS:
            self._pairs += 1
            self._counts.setdefault(subject, {})[key] = times
        else:
            self.dropped += times

    def of_key(self, key: bytes) -> Mapping[str, int]:
        """Return the reads of a key that were not taken yet, by subject."""
        self._add_samples()
        return {subject: of_subject[key] for subject, of_subject in self._counts.items() if key in of_subject}

    def take(self) -> Counts:
        """Return what was counted since the last call, and begin anew."""
        self._add_samples()
        counts, self._counts = self._counts, {}
        self._pairs = 0
        if self._on:
            self._every = self.left = 1
            self._until = COUNTED_AT_ONCE
        return counts

    def _add_samples(self) -> None:
        samples, self._samples = self._samples, []
        self._until -= len(samples)
        for key, subject, times in samples:
            self.add(key, subject, times)


OFF = ReadCounts(on=False)
