"""Encoded responses are what protobuf writes for the same answers."""

from dataclasses import replace

import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import key_to_bytes, rest_to_bytes, route_to_message
from pointsman_server.domain.errors import RouteInactive, RouteNotFound
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import Route, RouteKey, Snapshot
from pointsman_server.reads.answer import Answer, Source
from pointsman_server.reads.cache_entry import ABSENT, ACTIVE, INACTIVE, REST, EntryScope
from pointsman_server.rpc import convert
from pointsman_server.rpc.fastpath import encoder
from tests.support.fakes import BIRTH, EPOCH

KEY = RouteKey("team-a", "payments", "prod", "v1")
ENTRY = EntryScope(Scope("team-a", "prod"), EPOCH)


def route(*, active: bool = True) -> Route:
    return Route(KEY, "https://a.internal", active, {"tier": "gold"}, 3, BIRTH, BIRTH)


@pytest.mark.parametrize("source", Source)
@pytest.mark.parametrize("age", [0.0, 0.25, 70.5])
def test_an_answer_with_an_active_route_is_a_response(source: Source, age: float) -> None:
    answer = Answer(Snapshot(KEY, route(), 7, EPOCH), source, age)
    assert pb.ResolveResponse.FromString(encoder.response_of(answer)) == convert.resolve_response(answer)


def test_a_route_that_is_encoded_is_not_encoded_again() -> None:
    encoded = route_to_message(replace(route(), url="https://b.internal")).SerializeToString()
    answer = Answer(Snapshot(KEY, route(), 7, EPOCH), Source.REDIS, encoded=encoded)
    assert pb.ResolveResponse.FromString(encoder.response_of(answer)).route.url == "https://b.internal"


@pytest.mark.parametrize(("held", "error"), [(None, RouteNotFound), (route(active=False), RouteInactive)])
def test_an_answer_without_an_active_route_is_an_error(held: Route | None, error: type[Exception]) -> None:
    with pytest.raises(error):
        encoder.response_of(Answer(Snapshot(KEY, held, 7, EPOCH), Source.LOCAL))


@pytest.mark.parametrize(
    ("held", "state"), [(route(), ACTIVE), (route(active=False), INACTIVE), (None, ABSENT)], ids=str
)
def test_the_result_of_a_key_is_a_field_of_the_batch(held: Route | None, state: int) -> None:
    hit = (bytes(REST) + (rest_to_bytes(held) if held else b""), state, 7, 0.5, ENTRY)
    found = pb.BatchResolveResponse.FromString(encoder.batch_result(key_to_bytes(KEY), hit))
    assert list(found.results) == [convert.batch_result(KEY, Answer(Snapshot(KEY, held, 7, EPOCH), Source.LOCAL, 0.5))]
