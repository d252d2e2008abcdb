"""Change sets: the mutations of a commit, what commits and reverts return, and what differs between two moments."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from pointsman.keys import FamilyKey, RouteKey
from pointsman.results import Change, Route, Target, Traffic

Weights = Mapping[str, int] | Iterable[Target]
"""Versions and their weights in basis points, in order."""


class Mutation:
    """One step of a commit: one of the following."""

    __slots__ = ()


@dataclass(frozen=True, slots=True)
class Create(Mutation):
    """Make a new route, as ``Client.create`` does."""

    key: RouteKey | str
    url: str
    labels: Mapping[str, str] | None = None
    active: bool = True


@dataclass(frozen=True, slots=True)
class Update(Mutation):
    """Change the URL, the labels or both, as ``Client.update`` does."""

    key: RouteKey | str
    url: str | None = None
    labels: Mapping[str, str] | None = None
    expected_revision: int = 0
    allow_missing: bool = False


@dataclass(frozen=True, slots=True)
class Activate(Mutation):
    """Make a route live, as ``Client.activate`` does."""

    key: RouteKey | str
    expected_revision: int = 0
    exclusive: bool = False


@dataclass(frozen=True, slots=True)
class Deactivate(Mutation):
    """Take a route out of service, as ``Client.deactivate`` does."""

    key: RouteKey | str
    expected_revision: int = 0
    if_unused_for: timedelta | None = None


@dataclass(frozen=True, slots=True)
class Delete(Mutation):
    """Remove a route, as ``Client.delete`` does."""

    key: RouteKey | str
    expected_revision: int = 0
    if_unused_for: timedelta | None = None


@dataclass(frozen=True, slots=True)
class SetTraffic(Mutation):
    """Divide the calls of a tenant, service and env, as ``Client.set_traffic`` does."""

    key: FamilyKey | str
    weights: Weights
    fallbacks: Iterable[str] = ()
    expected_revision: int = 0


@dataclass(frozen=True, slots=True)
class DeleteTraffic(Mutation):
    """Remove the traffic of a tenant, service and env, as ``Client.delete_traffic`` does."""

    key: FamilyKey | str
    expected_revision: int = 0


@dataclass(frozen=True, slots=True)
class MutationResult:
    """What one mutation of a commit did: ``change_count`` changes from ``first_revision`` on; 0 and 0: nothing."""

    first_revision: int
    change_count: int


@dataclass(frozen=True, slots=True)
class ChangeSetResult:
    """What a commit or a revert did or, of a dry run, would have done.

    ``change_set_id`` is the revision of the first change; 0 if there was nothing to change. As of ``revision`` all of
    it holds: a revision token; of a dry run it is the revision before. ``changes`` are those that fit into the
    response, the first of them; ``omitted_change_count`` more are in the history. ``mutations`` has one result for
    each mutation of a commit, and none for a revert.
    """

    change_set_id: int
    revision: int
    changes: tuple[Change, ...]
    omitted_change_count: int = 0
    mutations: tuple[MutationResult, ...] = ()

    @property
    def size(self) -> int:
        """How many changes there are in all."""
        return len(self.changes) + self.omitted_change_count


@dataclass(frozen=True, slots=True)
class Difference:
    """What differs of one key between two moments: of a route or, where the key has no version, of the traffic.

    ``before`` and ``after`` are None where there was none. ``change_count`` changes led from one to the other, the
    last of which is ``last_change``.
    """

    key: RouteKey
    before: Route | Traffic | None
    after: Route | Traffic | None
    change_count: int
    last_change: Change
