"""selections: what an answer tells, and what a newer server may say."""

from pointsman import AmbiguousVersion, NoActiveVersion, Rule
from pointsman.memory import Sighting
from pointsman.rpc.selections import answers_of, choice_of, selection_of, sightings_of
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import selection_pb2

METADATA = {"key": "a/b/c", "revision": "9", "epoch": "e"}


def answered(traffic_revision: int, *inactive: str) -> pb.SelectResponse:
    response = pb.SelectResponse()
    response.route.key.tenant, response.route.key.service, response.route.key.env = "a", "b", "c"
    response.route.key.version, response.route.revision = "v1", 3
    response.choice.traffic_revision = traffic_revision
    response.choice.inactive_versions.extend(inactive)
    response.provenance.as_of_revision, response.provenance.epoch = 9, "e"
    return response


def test_a_rule_of_the_future_is_unknown() -> None:
    choice = selection_pb2.Choice.FromString(b"\x08\x63\x12\x02v1")  # rule = 99, version = v1
    assert (choice_of(choice).version, choice_of(choice).rule) == ("v1", Rule.UNKNOWN)


def test_a_split_stays_as_long_as_its_route_and_the_traffic() -> None:
    assert sightings_of(selection_of(answered(5))) == [Sighting("a/b/c", 5, 9, "e")]
    assert sightings_of(selection_of(answered(2))) == [Sighting("a/b/c", 3, 9, "e")]


def test_what_depends_on_other_versions_is_known_as_of_its_revision() -> None:
    assert sightings_of(selection_of(answered(5, "v2"))) == [Sighting("a/b/c", 9, 9, "e")]
    assert sightings_of(selection_of(answered(0))) == [Sighting("a/b/c", 9, 9, "e")]


def test_a_refusal_to_choose_tells_as_of_when() -> None:
    for error in (AmbiguousVersion("", metadata=METADATA), NoActiveVersion("", metadata=METADATA)):
        assert sightings_of(error) == [Sighting("a/b/c", 9, 9, "e")]


def test_a_result_without_an_answer_is_an_error() -> None:
    [answer] = answers_of(pb.BatchSelectResponse(results=[pb.BatchSelectResponse.Result()]))
    assert isinstance(answer, Exception)
