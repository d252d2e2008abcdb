"""What a select returns, and what explains it. A module of its own, as not every program loads it."""

from dataclasses import dataclass, field
from datetime import timedelta

from pointsman.errors import PointsmanError
from pointsman.keys import FamilyKey
from pointsman.results import Change, Resolution, Route, Source, Traffic, unwrapped
from pointsman.selection import Choice


@dataclass(frozen=True, slots=True)
class Selection(Resolution):
    """The route that a caller is to use, and ``choice``: which version, by which rule, past which inactive ones.

    ``traffic_revision`` is the revision of the traffic; 0 if none is set.
    """

    choice: Choice = field(kw_only=True)
    traffic_revision: int = field(kw_only=True)

    @property
    def version(self) -> str:
        """The version that was chosen."""
        return self.choice.version


@dataclass(frozen=True, slots=True)
class SelectionResult:
    """What ``select`` would have done for one caller: exactly one of ``selection`` and ``error`` is set."""

    key: FamilyKey
    sticky_key: str
    selection: Selection | None = None
    error: PointsmanError | None = None

    def unwrap(self) -> Selection:
        """Return the selection, or raise the error."""
        return unwrapped(self.key, self.selection, self.error)


@dataclass(frozen=True, slots=True)
class Layer:
    """What one layer holds. ``revision`` is 0 where it holds no answer, or holds that there is none.

    ``age`` is None where the layer does not tell; ``problem`` says why it could not be asked, and is empty if it could.
    """

    source: Source
    held: bool
    revision: int
    as_of_revision: int
    age: timedelta | None
    problem: str


@dataclass(frozen=True, slots=True)
class PermissionRule:
    """One rule of the policy, or one grant of the credential: whether it allows the call, and why."""

    source: str
    allows: bool
    why: str


@dataclass(frozen=True, slots=True)
class PermissionVerdict:
    """Whether ``subject`` has ``permission``. ``rules`` are there for callers who may read changes only."""

    subject: str
    permission: str
    allowed: bool
    rules: tuple[PermissionRule, ...]


@dataclass(frozen=True, slots=True)
class Explanation:
    """What a resolve or a select would answer now, and why. Exactly one of ``route`` and ``error`` is set.

    ``choice`` is None for a resolve, and where nothing can be chosen; ``traffic`` where none is set; ``last_change``,
    of the key or of its tenant, service and env, where the history that is kept has none. ``layers`` begin with the
    nearest.
    """

    route: Route | None
    error: PointsmanError | None
    choice: Choice | None
    traffic: Traffic | None
    as_of_revision: int
    epoch: str
    layers: tuple[Layer, ...]
    last_change: Change | None
    permission: PermissionVerdict
