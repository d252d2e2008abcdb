"""select_batch: each selection is asked for until its answer is there, and new enough."""

from pointsman.connection.bearer import Bearer
from pointsman.errors import ResourceExhausted
from pointsman.memory import Floor, Sighting
from pointsman.results import Consistency
from pointsman.rpc.select_batch import SelectBatch
from pointsman.rpc.selections import selection_of
from pointsman.rpc.session import Session
from pointsman.traffic import Selection
from pointsman.v1 import route_service_pb2 as pb

TOO_LARGE = ResourceExhausted("too large", reason="RESPONSE_TOO_LARGE")


def answer(service: str, as_of: int = 9) -> Selection:
    response = pb.SelectResponse()
    key = response.route.key
    key.tenant, key.service, key.env, key.version = "a", service, "c", "v1"
    response.choice.traffic_revision = 1
    response.provenance.as_of_revision = as_of
    return selection_of(response)


def batch(session: Session, *services: str) -> SelectBatch:
    pairs = [(f"a/{service}/c", "u") for service in services]
    return SelectBatch(session, pairs, Floor(), Consistency.MINIMIZE_LATENCY)


def services(request: pb.BatchSelectRequest | None) -> list[str]:
    return [each.service for each in request.selections] if request else []


def test_what_did_not_fit_is_asked_for_again_before_the_rest() -> None:
    ours = batch(Session(5.0, Bearer(), 4), "one", "two", "three")
    assert services(ours.next_request(None)) == ["one", "two", "three"]
    ours.take((answer("one"), TOO_LARGE, TOO_LARGE))
    assert services(ours.next_request(None)) == ["two", "three"]
    ours.take((answer("two"), answer("three")))
    assert ours.next_request(None) is None
    assert [each.unwrap().route.key.service for each in ours.results()] == ["one", "two", "three"]


def test_what_is_older_than_what_was_seen_is_asked_for_once_more() -> None:
    session = Session(5.0, Bearer(), 4)
    ours = batch(session, "one", "two")
    ours.next_request(None)
    ours.take((answer("one"), answer("two")))
    session.memory.saw([Sighting("a/two/c", 12, 12, "")], Floor(), "")
    again = ours.next_request(None)
    assert services(again) == ["two"]
    assert again is not None
    assert again.min_revision == 12
    ours.take((answer("two", as_of=12),))
    assert ours.next_request(None) is None
    assert ours.results()[1].unwrap().as_of_revision == 12


def test_a_floor_of_the_caller_is_used_as_it_is() -> None:
    session = Session(5.0, Bearer(), 4)
    ours = batch(session, "one")
    ours.next_request(3)
    ours.take((answer("one", as_of=3),))
    session.memory.saw([Sighting("a/one/c", 12, 12, "")], Floor(), "")
    assert ours.next_request(3) is None
