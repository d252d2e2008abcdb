"""The rule by which Select chooses a version: one for the server, the near-cache and every other client.

Each caller has a row of words, by its sticky key and the family, ``tenant/service/env``. A word is a number of 64 bits,
big-endian, of a SHA-256 (FIPS 180-4): words 0 to 3 are those of ``family LF sticky_key`` in UTF-8, words 4 to 7 those
of ``family LF sticky_key LF 1``, words 8 to 11 those of ``… LF 2``, and so on, with the number in decimal digits.

Word ``n`` gives **point** ``n``, ``word mod 10,000``, which is in the slice of one version. The first point whose
version is active chooses it. So if a version becomes inactive only its callers move, to the others in proportion to
their weights, and they come back. If the versions of points 0 to 63 are all inactive, word 64 decides, with equal
chances for each point of an active version: point number ``word mod count`` of those ``count`` points, in their order.

If no version with a weight is active, the first active fallback is taken. Without traffic, the only active version is.
An empty sticky key is replaced by a random text.

``docs/traffic.md`` explains it; ``tests/support/selection_vectors.json`` has test vectors.
"""

from bisect import bisect_right
from collections.abc import Callable, Collection, Iterator, Sequence
from enum import Enum
from hashlib import sha256
from itertools import accumulate, count, islice
from random import random
from struct import Struct
from typing import Any, Generic, NamedTuple, TypeVar, overload

POINTS = 10_000
MOST_POINTS = 64

T = TypeVar("T")

_words = Struct(">4Q").unpack
_first_word = Struct(">Q").unpack_from


class Rule(Enum):
    """Why a version was chosen."""

    SPLIT = "split"
    FALLBACK = "fallback"
    ONLY_ACTIVE = "only active"
    UNKNOWN = "unknown"
    """One that this release does not know."""


class Choice(NamedTuple):
    """A version, the rule that chose it, and the versions before it that are not active, in the order of the rule."""

    version: str
    rule: Rule
    inactive_versions: tuple[str, ...] = ()


class Split(Generic[T]):
    """A choice by traffic, made ready for many selections.

    ``family`` is ``tenant/service/env``; ``slices`` are versions and sizes that add up to ``POINTS``; ``targets`` are
    the versions in their order; ``active`` are the versions that are. ``make`` makes what ``choose`` returns of a
    choice: once for each version, and anew for each caller whose own version is not active.
    """

    __slots__ = ("_active", "_bounds", "_make", "_prefix", "_ready", "_single", "_slices", "_without_split")

    @overload
    def __init__(
        self: "Split[Choice]",
        family: str,
        slices: Sequence[tuple[str, int]],
        targets: Sequence[str],
        fallbacks: Sequence[str],
        active: Collection[str],
    ) -> None: ...

    @overload
    def __init__(
        self,
        family: str,
        slices: Sequence[tuple[str, int]],
        targets: Sequence[str],
        fallbacks: Sequence[str],
        active: Collection[str],
        make: Callable[[Choice], T],
    ) -> None: ...

    def __init__(
        self,
        family: str,
        slices: Sequence[tuple[str, int]],
        targets: Sequence[str],
        fallbacks: Sequence[str],
        active: Collection[str],
        make: Callable[[Choice], Any] = lambda choice: choice,
    ) -> None:
        self._make: Callable[[Choice], T] = make
        self._prefix = f"{family}\n".encode()
        self._slices = [version for version, _ in slices]
        self._bounds = list(accumulate(size for _, size in slices))
        with_weight = set(self._slices)
        # The slices of active versions: what word MOST_POINTS decides between.
        self._active = [(version, size) for version, size in slices if version in active]
        # By position of the slice: the choice that it makes at once, or None if its version is not active.
        ready = {version: make(Choice(version, Rule.SPLIT)) for version, _ in self._active}
        self._ready: list[T | None] = [ready.get(version) for version in self._slices]
        self._single = self._ready[0] if len(self._slices) == 1 else None
        without = None if self._active else _fallback(targets, with_weight, fallbacks, active)
        self._without_split: T | None = None if without is None else make(without)

    def choose(self, sticky_key: str) -> T | None:
        """Choose for a sticky key, and at random for an empty one; None if no version is active."""
        return self.choose_encoded(sticky_key.encode())

    def choose_encoded(self, sticky_key: bytes) -> T | None:
        """Choose for a sticky key in UTF-8."""
        if self._single is not None:
            return self._single
        if not self._active:
            return self._without_split
        sticky_key = sticky_key or b"%.17f" % random()  # noqa: S311 - no secret
        (word,) = _first_word(sha256(self._prefix + sticky_key).digest())
        return self._ready[bisect_right(self._bounds, word % POINTS)] or self._next(sticky_key)

    def possible(self) -> list[T]:
        """Return what ``choose`` may return, once for each version; empty if no version is active."""
        if self._active:
            return list(dict.fromkeys(ready for ready in self._ready if ready is not None))
        return [] if self._without_split is None else [self._without_split]

    def _next(self, sticky_key: bytes) -> T:
        row = words(self._prefix, sticky_key)
        passed: dict[str, None] = {}
        for word in islice(row, MOST_POINTS):
            position = bisect_right(self._bounds, word % POINTS)
            version = self._slices[position]
            if self._ready[position] is not None:
                return self._make(Choice(version, Rule.SPLIT, tuple(passed)))
            passed[version] = None
        bounds = list(accumulate(size for _, size in self._active))
        version, _ = self._active[bisect_right(bounds, next(row) % bounds[-1])]
        return self._make(Choice(version, Rule.SPLIT, tuple(passed)))


def words(prefix: bytes, sticky_key: bytes) -> Iterator[int]:
    """Yield the words of a caller; ``prefix`` is the family and a line feed, in UTF-8."""
    text = prefix + sticky_key
    for number in count():
        block = b"%s\n%d" % (text, number) if number else text
        yield from _words(sha256(block).digest())


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
