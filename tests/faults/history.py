"""What a run remembers: calls with their times on one monotonic clock, and the history that the store kept."""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from pointsman.v1 import route_pb2

UNANSWERED = math.inf
# Writes of many keys at once: all of the rows of their request_id are theirs.
SETS = frozenset({"commit", "revert"})
# How those request_ids begin.
SET = "s"


@dataclass(slots=True)
class Read:
    """One key, answered once. ``revision`` is that of the route, 0 without one; ``as_of`` is when the answer was true.

    ``server`` names one life of one server, empty if it was restarted during the call. ``floor`` is the
    ``min_revision`` that was asked for, ``floor_epoch`` the epoch that it counts in, if the client knew that.
    ``session`` is one client; ``token`` says that it sends back what it saw. ``epoch`` is that of the answer, empty if
    the server did not say it.
    """

    call: float
    ret: float
    key: str
    state: str  # active, inactive, absent
    revision: int
    as_of: int
    url: str = ""
    server: str = ""
    session: int = 0
    floor: int = 0
    token: bool = False
    epoch: str = ""
    floor_epoch: str = ""


@dataclass(slots=True)
class Write:
    """One mutation or change set, with all its attempts. ``ret`` is ``UNANSWERED`` while its outcome is unknown.

    ``answer`` is ok, refused or unknown; ``attempts`` that failed before it may have been carried out all the same.
    """

    call: float
    ret: float
    key: str
    kind: str
    request_id: str
    answer: str
    revision: int = 0
    attempts: int = 1
    server: str = ""
    session: int = 0


@dataclass(slots=True)
class Row:
    """One row of ``route_changes``. ``made`` is when, in seconds since 1970.

    ``before`` and ``after`` are what the route or the traffic was and is; ``url`` of traffic is its ``division_text``.
    """

    revision: int
    key: str
    kind: str
    request_id: str
    url: str = ""
    active: bool = False
    epoch: str = ""
    made: float = 0.0
    change_set_end: int = 0
    change_set_id: int = 0
    change_set_size: int = 0
    before: Mapping[str, Any] | None = None
    after: Mapping[str, Any] | None = None

    @property
    def state(self) -> str:
        """What a reader is told while this is the newest change of the key."""
        if self.kind in ("DELETED", "TRAFFIC_DELETED"):
            return "absent"
        if self.of_traffic:
            return "traffic"
        return "active" if self.active else "inactive"

    @property
    def of_traffic(self) -> bool:
        """Whether it is the change of a division of traffic: then its key has no version, and ends with a slash."""
        return self.key.endswith("/")

    @property
    def family(self) -> str:
        """Tenant, service and env."""
        return self.key.rpartition("/")[0]


def key_of(key: route_pb2.RouteKey) -> str:
    """Return the key as rows have it: that of traffic ends with a slash."""
    return f"{key.tenant}/{key.service}/{key.env}/{key.version}"


def division_text(targets: Mapping[str, int], fallbacks: Sequence[str], slices: Iterable[Sequence[Any]]) -> str:
    """Write a division of traffic as a text that only the same one has."""
    weights = ",".join(f"{version}={weight}" for version, weight in targets.items())
    return f"{weights} {','.join(fallbacks)} {','.join(f'{version}:{size}' for version, size in slices)}"


def text_of_traffic(traffic: Mapping[str, Any]) -> str:
    """Return the ``division_text`` of traffic as the store writes it down."""
    targets = {each["version"]: each["weight"] for each in traffic["targets"]}
    return division_text(targets, traffic["fallbacks"], traffic["slices"])


@dataclass(slots=True)
class Call:
    """One logical call for the availability: with its failover, however often it was tried."""

    call: float
    ret: float
    kind: str  # read, floor (a read with min_revision), select, write, set
    answered: bool
    key: str = ""
    keys: int = 1


@dataclass(slots=True)
class Failure:
    """One attempt that failed, at one life of a server.

    ``epoch`` is that of the token that was sent; ``limit`` names the limit that an overloaded server had reached.
    """

    call: float
    ret: float
    kind: str
    life: str
    code: str
    reason: str
    request_id: str = ""
    epoch: str = ""
    limit: str = ""


@dataclass(slots=True)
class Era:
    """The time between two restores of the database, and what it held in the end. All times are monotonic seconds.

    ``rows`` is all of its history, that before ``base`` from the backup. ``backup``: when the backup was begun that it
    grew from. ``opened``: since when it may have been written. ``switched``: when the command ended that gave it its
    epoch. ``sealed``: when nothing could be committed any more. ``relayed``: what Kafka had acknowledged then.
    """

    epoch: str
    base: int = 0
    backup: float = -math.inf
    opened: float = -math.inf
    switched: float = -math.inf
    sealed: float = math.inf
    relayed: int = 0
    rows: list[Row] = field(default_factory=list)


@dataclass(slots=True)
class History:
    """Everything that the clients saw."""

    reads: list[Read] = field(default_factory=list)
    writes: list[Write] = field(default_factory=list)
    calls: list[Call] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)

    @property
    def operations(self) -> int:
        """How many operations can be checked or counted: every key of a batch is one."""
        return sum(call.keys for call in self.calls)
