"""What xDS clients were answered. All times are monotonic seconds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.faults.traffic.records import SetWrite

# What stands for a backend where nothing is live.
NOTHING = ""


@dataclass(frozen=True, slots=True)
class Answer:
    """The first of several calls in a row that were answered alike: by a ``backend``, or by a status.

    ``last``: when the last call began that was answered as before.
    """

    began: float
    at: float
    code: str
    backend: str = NOTHING
    text: str = ""
    last: float = -math.inf

    @property
    def failed(self) -> bool:
        """Whether the call failed for another reason than that nothing is live."""
        return self.code not in ("OK", "NOT_FOUND")

    def __str__(self) -> str:
        return f"{self.code} {self.backend or self.text}"


@dataclass(slots=True)
class Disturbance:
    """A fault, and the time after it in which clients may still be behind.

    ``healed``: when a new cut-over was asked for; ``end``: when all had it. ``missing`` says who did not have it in
    time; then there is no end.
    """

    fault: str
    begin: float
    healed: float = 0.0
    end: float = math.inf
    missing: str = ""


@dataclass(slots=True)
class Observed:
    """All that was seen: of each client and name the answers in their order, each another than the one before.

    ``backends`` names them by their URLs. ``ended``: when nobody called any more. ``calls``: how many calls of each
    client were answered by which status. ``deaths``: what is known of the end of clients that died.
    """

    backends: Mapping[str, str] = field(default_factory=dict)
    answers: dict[tuple[str, str], Sequence[Answer]] = field(default_factory=dict)
    disturbances: list[Disturbance] = field(default_factory=list)
    sets: list[SetWrite] = field(default_factory=list)
    calls: dict[str, Mapping[str, int]] = field(default_factory=dict)
    deaths: dict[str, str] = field(default_factory=dict)
    ended: float = math.inf
