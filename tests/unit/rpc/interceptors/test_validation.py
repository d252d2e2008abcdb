"""Requests that break a rule are refused, each field by its path, whether they are small or large."""

from typing import Any, cast

import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman_server.domain.errors import InvalidField, MalformedRequest
from pointsman_server.rpc import DISCOVERY, SERVICE
from pointsman_server.rpc.interceptors.stage import Method
from pointsman_server.rpc.interceptors.validation import Malformed, tolerant, validate

CONTEXT = cast("Any", None)
KEY = RouteKey(tenant="team-a", service="payments", env="prod", version="v1")
URL = "https://payments.internal"


async def passed(method: str, request: Any) -> Any:
    """Return what the handler gets."""

    async def proceed(request: Any, _context: Any) -> Any:
        return request

    stage = validate()(Method(SERVICE, method, request_streaming=False, response_streaming=False), proceed)
    return await stage(request, CONTEXT)


def importing(count: int, url: str = URL) -> pb.ImportRequest:
    routes = [pb.ImportedRoute(key=KEY, url=URL)] * (count - 1)
    return pb.ImportRequest(routes=[*routes, pb.ImportedRoute(key=KEY, url=url)])


def committing(count: int, url: str = URL) -> pb.CommitRequest:
    mutations = [pb.Mutation(create=pb.CreateRequest(key=KEY, url=URL))] * (count - 1)
    return pb.CommitRequest(mutations=[*mutations, pb.Mutation(create=pb.CreateRequest(key=KEY, url=url))])


@pytest.mark.parametrize("count", [1, 300], ids=["small", "in a thread"])
@pytest.mark.parametrize(
    ("method", "make", "field"),
    [("Import", importing, "routes[{}].url"), ("Commit", committing, "mutations[{}].create.url")],
)
async def test_large_requests_are_held_to_the_rules(method: str, make: Any, field: str, count: int) -> None:
    assert await passed(method, make(count)) == make(count)
    with pytest.raises(InvalidField) as refused:
        await passed(method, make(count, url=""))
    assert [each.field for each in refused.value.violations] == [field.format(count - 1)]


async def test_a_commit_is_held_to_what_the_protos_do_not_say() -> None:
    request = committing(1)
    request.mutations[0].create.reason = "why"
    request.mutations.add()
    with pytest.raises(InvalidField) as refused:
        await passed("Commit", request)
    assert [each.field for each in refused.value.violations] == ["mutations[0].create.reason", "mutations[1]"]


@pytest.mark.parametrize("method", ["Resolve", "Import", "Commit"])
async def test_what_is_no_message_gets_a_fixed_text(method: str) -> None:
    request = tolerant(pb.CommitRequest.FromString)(b"\xff")
    assert isinstance(request, Malformed)
    with pytest.raises(MalformedRequest):
        await passed(method, request)


async def test_a_pattern_is_told_in_words() -> None:
    with pytest.raises(InvalidField, match=r"key\.tenant: must be 1 to 63 characters"):
        await passed("Resolve", pb.ResolveRequest(key=RouteKey(tenant="team a", service="a", env="b", version="c")))


async def test_messages_of_others_are_held_to_no_rules_but_must_be_messages() -> None:
    async def proceed(request: Any, _context: Any) -> Any:
        return request

    stage = validate()(Method(DISCOVERY, "StreamAggregatedResources"), proceed)
    assert await stage("anything", CONTEXT) == "anything"
    with pytest.raises(MalformedRequest):
        await stage(Malformed(), CONTEXT)
