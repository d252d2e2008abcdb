"""The rule by which Select chooses a version: one for the server, the near-cache and every other client.

Each caller has a row of **points** from 0 to 9,999, by its sticky key and the family, ``tenant/service/env``: point
number ``n`` is ``word(n) mod 10,000``. The words are those of SHA-256 (FIPS 180-4), 64 bits each, big-endian, of
``family LF sticky_key`` in UTF-8; after its four words, those of ``family LF sticky_key LF 1``, then ``… LF 2``, and so
on. The first point whose slice belongs to an active version chooses it. So if a version becomes inactive only its
callers move, to the others in proportion to their weights, and they come back. After ``MOST_POINTS`` points the first
target in order that has a weight and is active is taken; if there is none, the first active fallback.

``docs/traffic.md`` explains it; ``tests/support/selection_vectors.json`` has test vectors.
"""

from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from enum import Enum
from hashlib import sha256
from itertools import accumulate, count, islice
from random import random
from struct import Struct
from typing import NamedTuple

POINTS = 10_000
MOST_POINTS = 64

_words = Struct(">4Q").unpack
_first_word = Struct(">Q").unpack_from


class Rule(Enum):
    """Why a version was chosen."""

    SPLIT = "split"
    FALLBACK = "fallback"
    ONLY_ACTIVE = "only active"


class Choice(NamedTuple):
    """A version, the rule that chose it, and the versions before it that are not active, in the order of the rule."""

    version: str
    rule: Rule
    inactive_versions: tuple[str, ...] = ()


class Split:
    """A choice by traffic, made ready for many selections.

    ``family`` is ``tenant/service/env``; ``slices`` are versions and sizes that add up to ``POINTS``; ``targets`` are
    the versions in their order; ``active`` are the versions that are.
    """

    __slots__ = ("_bounds", "_prefix", "_ready", "_single", "_slices", "_targets", "_without_split")

    def __init__(
        self,
        family: str,
        slices: Sequence[tuple[str, int]],
        targets: Sequence[str],
        fallbacks: Sequence[str],
        active: Collection[str],
    ) -> None:
        self._prefix = f"{family}\n".encode()
        self._slices = [version for version, _ in slices]
        self._bounds = list(accumulate(size for _, size in slices))
        with_weight = set(self._slices)
        self._targets = [version for version in targets if version in with_weight and version in active]
        # By position of the slice: the choice that it makes at once, or None if its version is not active.
        self._ready = [Choice(v, Rule.SPLIT) if v in active else None for v in self._slices]
        self._single = self._ready[0] if len(self._slices) == 1 else None
        self._without_split = None if self._targets else _fallback(targets, with_weight, fallbacks, active)

    def choose(self, sticky_key: str) -> Choice | None:
        """Choose for a sticky key, and at random for an empty one; None if no version is active."""
        if self._single is not None:
            return self._single
        if not self._targets:
            return self._without_split
        sticky_key = sticky_key or str(random())  # noqa: S311 - no secret
        (word,) = _first_word(sha256(self._prefix + sticky_key.encode()).digest())
        return self._ready[bisect_right(self._bounds, word % POINTS)] or self._next(sticky_key)

    def _next(self, sticky_key: str) -> Choice:
        passed: dict[str, None] = {}
        for point in islice(points(self._prefix, sticky_key), MOST_POINTS):
            position = bisect_right(self._bounds, point)
            if found := self._ready[position]:
                return Choice(found.version, Rule.SPLIT, tuple(passed))
            passed[self._slices[position]] = None
        return Choice(self._targets[0], Rule.SPLIT, tuple(passed))


def points(prefix: bytes, sticky_key: str) -> Iterator[int]:
    """Yield the points of a caller; ``prefix`` is the family and a line feed, in UTF-8."""
    text = prefix + sticky_key.encode()
    for number in count():
        block = b"%s\n%d" % (text, number) if number else text
        for word in _words(sha256(block).digest()):
            yield word % POINTS


def only_active(active: Sequence[str]) -> Choice | None:
    """Choose where no traffic is set: the only active version. None if there is none, or more than one."""
    return Choice(active[0], Rule.ONLY_ACTIVE) if len(active) == 1 else None


def _fallback(
    targets: Sequence[str], with_weight: Collection[str], fallbacks: Sequence[str], active: Collection[str]
) -> Choice | None:
    passed = [version for version in targets if version in with_weight]
    for version in fallbacks:
        if version in active:
            return Choice(version, Rule.FALLBACK, tuple(dict.fromkeys(passed)))
        passed.append(version)
    return None
