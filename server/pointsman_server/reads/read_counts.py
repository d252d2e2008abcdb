"""Counts reads by key and subject in the memory of one process, at a fraction of the cost of a read."""

import sys
from collections.abc import Mapping, Sequence
from random import Random

# One read of so many is counted when there are many; then it counts for all of them.
MOST_SAMPLED = 16
# After so many counted reads between two calls of ``take``, half as many of the reads that follow are.
COUNTED_AT_ONCE = 1_000
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

    __slots__ = ("_counted", "_counts", "_every", "_on", "_pairs", "_random", "dropped", "left")

    def __init__(self, *, on: bool = True, random: Random | None = None) -> None:
        """Without ``on`` nothing is counted."""
        self._on = on
        # Seeded by the operating system; what it chooses is no secret.
        self._random = random or Random()  # noqa: S311
        self._counts: dict[str, dict[bytes, int]] = {}
        self._pairs = self._counted = 0
        self._every = 1
        # Reads that were dropped since ``take``.
        self.dropped = 0
        self.left = 1 if on else sys.maxsize

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
            self.left = sys.maxsize
            return
        every = self._every
        self.add(key, subject, every)
        self._counted += 1
        if self._counted >= COUNTED_AT_ONCE and every < MOST_SAMPLED:
            self._counted, self._every = 0, 2 * every
        # On average, every ``every``-th.
        self.left = self._random.randrange(1, 2 * self._every) if self._every > 1 else 1

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
        return {subject: of_subject[key] for subject, of_subject in self._counts.items() if key in of_subject}

    def take(self) -> Counts:
        """Return what was counted since the last call, and begin anew."""
        counts, self._counts = self._counts, {}
        self._pairs = self._counted = 0
        if self._on:
            self._every = self.left = 1
        return counts


OFF = ReadCounts(on=False)
