"""What was selected, as messages."""

import pytest

from pointsman.selection import Choice, Rule
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import selection_pb2
from pointsman_server.domain.errors import AmbiguousVersion, NoActiveVersion, ResponseTooLarge, StoreUnavailable
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.rpc import selections
from pointsman_server.rpc.convert import RESPONSE_BYTES, provenance
from pointsman_server.rpc.selections import Selected
from pointsman_server.rpc.statuses import status_of
from tests.support.fakes import BIRTH, EPOCH

FAMILY = RouteKey("team-a", "payments", "prod", "")
ANSWER = Answer(Snapshot(FAMILY, None, 9, EPOCH), Source.REDIS, 0.5)


def selected(rule: Rule = Rule.SPLIT, *, labels: dict[str, str] | None = None) -> Selected:
    route = Route(FAMILY._replace(version="v1"), "https://a.internal", True, labels or {}, 3, BIRTH, BIRTH)
    return Selected(ANSWER, (route, Choice("v1", rule, ("v2", "v3"))), 7)


@pytest.mark.parametrize("rule", [rule for rule in Rule if rule is not Rule.UNKNOWN])
def test_a_choice_has_its_rule_and_what_it_passed(rule: Rule) -> None:
    response = selections.select_response(selected(rule))
    assert response.choice == selection_pb2.Choice(
        rule=getattr(selection_pb2.Choice, f"RULE_{rule.name}"),
        version="v1",
        inactive_versions=["v2", "v3"],
        traffic_revision=7,
    )
    assert response.route.url == "https://a.internal"
    assert response.provenance == provenance(ANSWER)


def test_a_result_has_what_the_response_has() -> None:
    response = selections.select_response(selected())
    assert selections.batch_result(selected()) == pb.BatchSelectResponse.Result(
        route=response.route, provenance=response.provenance, choice=response.choice
    )


def test_why_nothing_was_chosen_is_raised_and_is_the_status_of_a_result() -> None:
    error = AmbiguousVersion(str(FAMILY), ["v1", "v2"], 9, EPOCH)
    nothing = Selected(ANSWER, error, 0)
    with pytest.raises(AmbiguousVersion):
        selections.select_response(nothing)
    assert selections.batch_result(nothing) == pb.BatchSelectResponse.Result(
        status=status_of(error), provenance=provenance(ANSWER)
    )


def test_without_an_answer_a_result_has_the_status_alone() -> None:
    error = StoreUnavailable()
    assert selections.batch_result(error) == pb.BatchSelectResponse.Result(status=status_of(error))


def test_results_that_do_not_fit_become_statuses() -> None:
    large = selections.batch_result(selected(labels={str(number): "x" * 250 for number in range(60)}))
    nothing = selections.batch_result(Selected(ANSWER, NoActiveVersion(str(FAMILY), (), 9), 0))
    response = selections.batch_response([*[large] * 500, nothing])
    assert response.ByteSize() <= RESPONSE_BYTES
    refused = [result.status == status_of(ResponseTooLarge()) for result in response.results]
    assert refused == [*sorted(refused[:-1]), False]
    assert 0 < sum(refused) < 300
    assert list(response.results[:2]) == [large, large]
