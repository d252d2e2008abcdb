"""Traffic: how the calls of a tenant, service and env are divided between its versions."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import NamedTuple

from pointsman.selection import POINTS


class Target(NamedTuple):
    """A version and its weight in basis points."""

    version: str
    weight: int


class Slice(NamedTuple):
    """A run of ``size`` points that belong to a version. The first begins at point 0, each next where one ends."""

    version: str
    size: int


@dataclass(frozen=True, slots=True)
class Division:
    """The wanted traffic: weights that add up to ``POINTS``, and the versions to fall back to, in order."""

    targets: tuple[Target, ...]
    fallbacks: tuple[str, ...] = ()

    @property
    def versions(self) -> frozenset[str]:
        """Every version that is named."""
        return frozenset((*(target.version for target in self.targets), *self.fallbacks))


# Whose points nobody has; no version is called so.
NOBODY = ""


def allot(targets: Sequence[Target], before: Sequence[Slice] = ()) -> tuple[Slice, ...]:
    """Give each target as many points as its weight, and move as few as possible from where they were ``before``.

    A target whose weight shrinks gives up its last points; they go, in their order, to the targets that grow, in the
    order of ``targets``. So moving n points moves n, and nobody else.
    """
    wanted = {target.version: target.weight for target in targets}
    lacking = dict(wanted)
    pieces: list[Slice] = []
    for version, size in before or [Slice(NOBODY, POINTS)]:
        kept = min(size, lacking.get(version, 0))
        pieces += [Slice(version, kept), Slice(NOBODY, size - kept)]
        lacking[version] = lacking.get(version, 0) - kept
    growing = [Slice(version, lacking[version]) for version in wanted]
    return tuple(_joined(_given(pieces, growing)))


def _given(pieces: Iterable[Slice], growing: Iterable[Slice]) -> Iterator[Slice]:
    """Give the points of nobody to those that grow, in their order: each lacks as many as its size."""
    waiting = iter(growing)
    version, lacks = NOBODY, 0
    for piece in pieces:
        free = piece.size if piece.version == NOBODY else 0
        if not free:
            yield piece
        while free:
            while not lacks:
                version, lacks = next(waiting)
            size = min(free, lacks)
            yield Slice(version, size)
            free, lacks = free - size, lacks - size


def _joined(pieces: Iterable[Slice]) -> Iterator[Slice]:
    """Join neighbours of one version, and leave out empty pieces."""
    for version, same in groupby((piece for piece in pieces if piece.size), key=lambda piece: piece.version):
        yield Slice(version, sum(piece.size for piece in same))
