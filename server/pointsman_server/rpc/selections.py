"""Selects from the answers of reads, and converts what was selected to messages."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from pointsman.selection import Choice, Rule
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import selection_pb2
from pointsman_server.domain.codec import route_to_message
from pointsman_server.domain.errors import AmbiguousVersion, PointsmanError, ResponseTooLarge
from pointsman_server.domain.routes import Route
from pointsman_server.reads.answer import Answer
from pointsman_server.reads.selection import Selector
from pointsman_server.rpc.convert import provenance, within_limit
from pointsman_server.rpc.statuses import status_of

# Of a selection, for the metrics: the rule that chose, or why nothing was chosen; or no answer of a family.
OUTCOMES = ("split", "fallback", "only_active", "ambiguous", "absent", "failed")

_RULES: Mapping[Rule, selection_pb2.Choice.Rule.ValueType] = {
    rule: selection_pb2.Choice.Rule.Value(f"RULE_{rule.name}") for rule in Rule if rule is not Rule.UNKNOWN
}


@dataclass(frozen=True, slots=True)
class Selected:
    """What was chosen from ``answer``, a family, or why nothing was; and the revision of the traffic, 0 without one."""

    answer: Answer
    chosen: tuple[Route, Choice] | PointsmanError
    traffic_revision: int

    @property
    def outcome(self) -> str:
        """One of ``OUTCOMES``."""
        if isinstance(self.chosen, PointsmanError):
            return "ambiguous" if isinstance(self.chosen, AmbiguousVersion) else "absent"
        return self.chosen[1].rule.name.lower()


def choose(answer: Answer, sticky_key: bytes, selector: Selector | None = None) -> Selected:
    """Choose from a family for a sticky key in UTF-8; ``selector`` is that of the answer, if the caller has it."""
    snapshot = answer.snapshot
    selector = selector or Selector(snapshot.family)
    choice = selector.choose(sticky_key)
    if choice is None:
        return Selected(answer, selector.refusal(snapshot.as_of, snapshot.epoch), selector.traffic_revision)
    return Selected(answer, (selector.route_of(choice), choice), selector.traffic_revision)


def choice_message(choice: Choice, traffic_revision: int) -> selection_pb2.Choice:
    return selection_pb2.Choice(
        rule=_RULES[choice.rule],
        version=choice.version,
        inactive_versions=choice.inactive_versions,
        traffic_revision=traffic_revision,
    )


def select_response(selected: Selected) -> pb.SelectResponse:
    """Encode what was selected. Raises why nothing was."""
    if isinstance(selected.chosen, PointsmanError):
        raise selected.chosen
    route, choice = selected.chosen
    return pb.SelectResponse(
        route=route_to_message(route),
        provenance=provenance(selected.answer),
        choice=choice_message(choice, selected.traffic_revision),
    )


def batch_result(selected: Selected | PointsmanError) -> pb.BatchSelectResponse.Result:
    """Encode what was selected for one caller, or the status that Select would have ended with."""
    if isinstance(selected, PointsmanError):
        return pb.BatchSelectResponse.Result(status=status_of(selected))
    result = pb.BatchSelectResponse.Result(provenance=provenance(selected.answer))
    if isinstance(selected.chosen, PointsmanError):
        result.status.CopyFrom(status_of(selected.chosen))
        return result
    route, choice = selected.chosen
    result.route.CopyFrom(route_to_message(route))
    result.choice.CopyFrom(choice_message(choice, selected.traffic_revision))
    return result


def batch_response(results: Sequence[pb.BatchSelectResponse.Result]) -> pb.BatchSelectResponse:
    """Return the response, with results that fit."""
    return within_limit(lambda some: pb.BatchSelectResponse(results=some), results, _too_large)


def _too_large(_result: pb.BatchSelectResponse.Result) -> pb.BatchSelectResponse.Result:
    return pb.BatchSelectResponse.Result(status=status_of(ResponseTooLarge()))
