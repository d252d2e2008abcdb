"""SelectBatch: any number of selections, as calls of at most 1,000, until each has an answer that is new enough."""

from collections.abc import Iterable
from itertools import chain

from pointsman.errors import PointsmanError
from pointsman.keys import FamilyKey, as_family
from pointsman.memory import Floor
from pointsman.results import Consistency
from pointsman.rpc.requests import BATCH_LIMIT
from pointsman.rpc.selections import Answer
from pointsman.rpc.session import Session
from pointsman.rpc.traffic_requests import batch_select
from pointsman.traffic import Selection, SelectionResult
from pointsman.v1 import route_service_pb2 as pb


class SelectBatch:
    """What is still to be asked, by position: what was never asked or left out, then what was answered too old."""

    def __init__(
        self,
        session: Session,
        selections: Iterable[tuple[FamilyKey | str, str]],
        floor: Floor,
        consistency: Consistency,
    ) -> None:
        self._session = session
        self._wanted = [(as_family(key), sticky_key) for key, sticky_key in selections]
        self._floor = floor
        self._consistency = consistency
        self._answers: dict[int, Answer] = {}
        self._missing = list(range(len(self._wanted)))
        self._asked: list[int] = []
        self._repeated = False

    def next_request(self, min_revision: int | None) -> pb.BatchSelectRequest | None:
        """Return the next call, or None when there is nothing left to ask."""
        if not self._missing and not self._repeated:
            self._repeated = True
            ordered = [self._answers[position] for position in range(len(self._wanted))]
            self._missing, self._floor = self._session.select_again(ordered, min_revision)
        if not self._missing:
            return None
        self._asked, self._missing = self._missing[:BATCH_LIMIT], self._missing[BATCH_LIMIT:]
        [request] = batch_select((self._wanted[each] for each in self._asked), self._floor, self._consistency)
        return request

    def take(self, answers: tuple[Answer, ...]) -> None:
        """Take the answers of the last call; those that did not fit are asked for again."""
        left_out = []
        for position, answer in zip(self._asked, answers, strict=True):
            if isinstance(answer, PointsmanError) and answer.reason == "RESPONSE_TOO_LARGE":
                left_out.append(position)
            else:
                self._answers[position] = answer
        self._missing = list(chain(left_out, self._missing))

    def results(self) -> tuple[SelectionResult, ...]:
        """Return the results, in the order of the selections."""
        return tuple(
            SelectionResult(key, sticky_key, selection=answer)
            if isinstance(answer := self._answers[position], Selection)
            else SelectionResult(key, sticky_key, error=answer)
            for position, (key, sticky_key) in enumerate(self._wanted)
        )
