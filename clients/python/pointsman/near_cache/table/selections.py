"""What the table of a near-cache has for a tenant, service and env: a choice that is ready, or why there is none."""

from collections.abc import Callable, Mapping, Sequence

from pointsman.errors import AmbiguousVersion, NoActiveVersion
from pointsman.near_cache.table.entries import NEVER, Behind, CachedResolution, Deleted, InactiveRoute
from pointsman.near_cache.table.view import View
from pointsman.selection import POINTS, Choice, Split, only_active
from pointsman.traffic import Selection
from pointsman.v1.traffic_pb2 import Traffic

MOST_NAMED = 16
"""Versions that an error names."""


class CachedSelection(CachedResolution):
    """The route that a select of a near-cache chose, with the attributes of ``Selection``. It is shared, too."""

    __slots__ = ("_family", "choice")

    def __init__(self, family: "FamilyEntry", choice: Choice, route: CachedResolution) -> None:
        key, url, revision, rest, _ = route.stored
        super().__init__(family.owner, key, url, revision, rest)
        self._family = family
        self.choice = choice
        """The version, the rule that chose it, and the versions before it that are not active."""

    @property
    def traffic_revision(self) -> int:
        """The revision of the traffic; 0 if none is set."""
        return self._family.traffic_revision

    def _current_until(self) -> tuple[float, int, str] | None:
        return self._family.superseded

    def __repr__(self) -> str:
        return f"CachedSelection({self.key_text} → {self.url}, by {self.choice.rule.value}, revision {self.revision})"


class FamilyEntry:
    """A family, made ready for many selects. Another one takes its place with each change of its routes or traffic.

    ``choose`` returns what is chosen for a sticky key in UTF-8, at random for an empty one; None if nothing can be.
    """

    __slots__ = ("choose", "family", "named", "owner", "possible", "superseded", "traffic_revision")

    # A resolve of the name of a family finds no route here.
    view = NEVER

    def __init__(
        self, owner: View, family: str, traffic: Traffic | None, routes: Mapping[str, CachedResolution]
    ) -> None:
        """``routes``: the active ones by their versions, in the order of these.

        Raises ValueError for traffic that does not divide all points.
        """
        self.owner = owner
        self.family = family
        self.traffic_revision = traffic.revision if traffic else 0
        self.superseded: tuple[float, int, str] | None = None
        """The moment and the position as of which this was last known to be current, once it no longer is."""
        self.named: Sequence[str] = [*routes]
        """The versions that an error names: those of the traffic, and the active ones without."""
        self.choose: Callable[[bytes], CachedSelection | None]
        self.possible: Callable[[], list[CachedSelection]]
        """Returns what ``choose`` may return."""

        def made(choice: Choice) -> CachedSelection:
            return CachedSelection(self, choice, routes[choice.version])

        if traffic is None:
            choice = only_active(self.named)
            only = made(choice) if choice else None
            self.choose = lambda _: only
            self.possible = lambda: [only] if only else []
        else:
            slices = [(piece.version, piece.size) for piece in traffic.slices]
            if sum(size for _, size in slices) != POINTS or any(size <= 0 for _, size in slices):
                raise ValueError(f"the traffic of {family} does not divide all points")
            targets = [target.version for target in traffic.targets]
            self.named = list(dict.fromkeys((*targets, *traffic.fallbacks)))
            split = Split(family, slices, targets, traffic.fallbacks, routes, made)
            self.choose, self.possible = split.choose_encoded, split.possible

    def refusal(self, known: Mapping[str, str]) -> NoActiveVersion | AmbiguousVersion:
        """Return why nothing can be chosen, in the words of the server; ``known`` is the rest of the metadata."""
        shown = ",".join(self.named[:MOST_NAMED]) + (",…" if len(self.named) > MOST_NAMED else "")
        metadata = {**known, "versions": shown}
        if self.named and not self.traffic_revision:
            message = f"several versions of {self.family} are active: {shown}; set traffic, or deactivate all but one"
            return AmbiguousVersion(message, reason="AMBIGUOUS_VERSION", metadata=metadata)
        message = f"no version of {self.family} is active: activate one" + (f" of {shown}" if shown else "")
        return NoActiveVersion(message, reason="NO_ACTIVE_VERSION", metadata=metadata)

    def supersede(self, known: tuple[float, int, str]) -> None:
        """Take note that another entry takes its place; this one was current as of ``known``."""
        self.superseded = known


Entry = CachedResolution | InactiveRoute | Behind | Deleted | FamilyEntry
"""What the table may have for the name of a route or of a family."""
Selected = Selection | CachedSelection
"""What a select of a near-cache returns: from its table, or from the server where it had to be asked."""
