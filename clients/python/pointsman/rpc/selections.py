"""From the messages about selections to the values that the client returns."""

from collections.abc import Iterable
from datetime import timedelta

from pointsman.errors import PointsmanError
from pointsman.memory import Sighting
from pointsman.rpc.convert import change_of, route_of, source_of, traffic_of
from pointsman.rpc.operations import absence
from pointsman.rpc.statuses import error_from_status
from pointsman.selection import Choice, Rule
from pointsman.traffic import Explanation, Layer, PermissionRule, PermissionVerdict, Selection
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import selection_pb2

_RULES = {
    selection_pb2.Choice.RULE_SPLIT: Rule.SPLIT,
    selection_pb2.Choice.RULE_FALLBACK: Rule.FALLBACK,
    selection_pb2.Choice.RULE_ONLY_ACTIVE: Rule.ONLY_ACTIVE,
}

Answer = Selection | PointsmanError


def choice_of(message: selection_pb2.Choice) -> Choice:
    """Return which version was chosen, and why."""
    return Choice(message.version, _RULES.get(message.rule, Rule.UNKNOWN), tuple(message.inactive_versions))


def selection_of(answer: pb.SelectResponse | pb.BatchSelectResponse.Result) -> Selection:
    """Return the route of an answer, with its choice and its provenance."""
    provenance = answer.provenance
    return Selection(
        route=route_of(answer.route),
        choice=choice_of(answer.choice),
        traffic_revision=answer.choice.traffic_revision,
        source=source_of(provenance.source),
        age=provenance.age.ToTimedelta(),
        as_of_revision=provenance.as_of_revision,
        epoch=provenance.epoch,
    )


def answers_of(response: pb.BatchSelectResponse) -> tuple[Answer, ...]:
    """Return the answers of a batch; a status becomes the exception that ``select`` would have raised."""
    return tuple(
        selection_of(result) if result.WhichOneof("answer") == "route" else error_from_status(result.status)
        for result in response.results
    )


def explanation_of(message: pb.ExplainResponse) -> Explanation:
    """Return what would be answered, and why."""
    has_route = message.WhichOneof("answer") == "route"
    return Explanation(
        route=route_of(message.route) if has_route else None,
        error=None if has_route else error_from_status(message.status),
        choice=choice_of(message.choice) if message.HasField("choice") else None,
        traffic=traffic_of(message.traffic) if message.HasField("traffic") else None,
        as_of_revision=message.as_of_revision,
        epoch=message.epoch,
        layers=tuple(map(_layer, message.layers)),
        last_change=change_of(message.last_change) if message.HasField("last_change") else None,
        permission=_verdict(message.permission),
    )


def _layer(message: pb.ExplainResponse.Layer) -> Layer:
    age: timedelta | None = message.age.ToTimedelta() if message.HasField("age") else None
    return Layer(
        source_of(message.source), message.held, message.revision, message.as_of_revision, age, message.problem
    )


def _verdict(message: pb.ExplainResponse.Permission) -> PermissionVerdict:
    rules = tuple(PermissionRule(rule.source, rule.allows, rule.why) for rule in message.rules)
    return PermissionVerdict(message.subject, message.permission, message.allowed, rules)


def selected(selection: Selection) -> list[Sighting]:
    """Return what a selection tells of its tenant, service and env.

    It stays the same as long as its route, the traffic and the versions that it passed over do. The revisions of the
    first two are in it. Where it depends on others, all that is known is as of when it was true.
    """
    depends_on_others = selection.choice.inactive_versions or not selection.traffic_revision
    revision = max(selection.route.revision, selection.traffic_revision)
    seen = max(selection.as_of_revision, revision) if depends_on_others else revision
    return [Sighting(str(selection.route.key.family), seen, selection.as_of_revision, selection.epoch)]


def sightings_of(answer: Answer) -> list[Sighting]:
    """Return what one answer of a batch tells."""
    return selected(answer) if isinstance(answer, Selection) else absence(answer)


def all_selected(answers: Iterable[Answer]) -> list[Sighting]:
    """Return what the answers of a batch tell."""
    return [sighting for answer in answers for sighting in sightings_of(answer)]
