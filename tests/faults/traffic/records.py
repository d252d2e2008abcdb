"""What the clients of change sets and selections saw."""

from collections import deque
from dataclasses import dataclass, field

from pointsman.v1 import route_service_pb2 as pb
from tests.faults.history import Write

# The newest change sets, which a revert may undo.
KEPT_TARGETS = 20


@dataclass(slots=True)
class Selected:
    """One selection, answered once, by a server or a near-cache.

    ``state`` is chosen, none (NO_ACTIVE_VERSION) or ambiguous; only what is chosen has a version, its ``revision``, a
    url, a rule and what was passed over. The rest is as of a Read.
    """

    call: float
    ret: float
    family: str
    sticky_key: str
    state: str
    as_of: int
    epoch: str
    version: str = ""
    revision: int = 0
    url: str = ""
    rule: str = ""
    passed: tuple[str, ...] = ()
    traffic_revision: int = 0
    server: str = ""
    session: int = 0
    floor: int = 0
    floor_epoch: str = ""
    token: bool = False


@dataclass(frozen=True, slots=True)
class Target:
    """What a revert undoes: revisions of an epoch."""

    epoch: str
    first: int
    last: int


@dataclass(slots=True)
class SetWrite:
    """A commit or a revert: what was asked for, and the answer to it; ``reason`` is why it was refused."""

    write: Write
    mutations: tuple[pb.Mutation, ...] = field(default=(), repr=False)
    target: Target | None = None
    force: bool = False
    reason: str = ""
    reply: pb.CommitResponse | pb.RevertResponse | None = field(default=None, repr=False)


@dataclass(slots=True)
class Observed:
    """All that was seen; ``targets`` are change sets that may be reverted."""

    selected: list[Selected] = field(default_factory=list)
    sets: list[SetWrite] = field(default_factory=list)
    targets: deque[Target] = field(default_factory=lambda: deque(maxlen=KEPT_TARGETS))
