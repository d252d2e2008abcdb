"""traffic: set_traffic, get_traffic, list_traffic and delete_traffic."""

import grpc
import pytest

from pointsman import (
    AsyncClient,
    Client,
    InvalidArgument,
    RevisionInFuture,
    RevisionMismatch,
    RouteInTraffic,
    Target,
    TargetNotFound,
    TrafficNotFound,
)
from tests.support.fake_route_service import Failure, FakeServer

FAMILY = "team-a/payments/prod"


@pytest.fixture(autouse=True)
def _versions(server: FakeServer) -> None:
    for version in ("v1", "v2", "v3"):
        server.add(f"{FAMILY}/{version}", f"https://{version}.internal")


def test_divides_calls_and_says_how_they_are_divided(client: Client, server: FakeServer) -> None:
    traffic = client.set_traffic(FAMILY, {"v1": 9000, "v2": 1000}, fallbacks=["v3"], reason="canary")
    assert traffic.weights == {"v1": 9000, "v2": 1000}
    assert (traffic.targets[0], traffic.fallbacks) == (Target("v1", 9000), ("v3",))
    assert sum(size for _, size in traffic.slices) == 10_000
    assert (client.get_traffic(FAMILY), traffic.revision, client.last_revision) == (traffic, 4, 4)
    request = server.called("SetTraffic")[0].request
    assert (request.reason, bool(request.request_id)) == ("canary", True)


def test_takes_targets_in_their_order(client: Client) -> None:
    traffic = client.set_traffic(FAMILY, [Target("v2", 1000), Target("v1", 9000)])
    assert [target.version for target in traffic.targets] == ["v2", "v1"]


def test_refuses_what_cannot_be(client: Client) -> None:
    with pytest.raises(InvalidArgument, match="10,000"):
        client.set_traffic(FAMILY, {"v1": 90})
    with pytest.raises(TargetNotFound) as caught:
        client.set_traffic(FAMILY, {"v1": 9000, "v9": 1000})
    assert caught.value.versions == ("v9",)
    with pytest.raises(TrafficNotFound):
        client.set_traffic(FAMILY, {"v1": 10_000}, expected_revision=3)
    client.set_traffic(FAMILY, {"v1": 10_000})
    with pytest.raises(RevisionMismatch):
        client.set_traffic(FAMILY, {"v2": 10_000}, expected_revision=3)
    with pytest.raises(RouteInTraffic) as named:
        client.delete(f"{FAMILY}/v1")
    assert named.value.traffic_revision == 4


@pytest.mark.parametrize("weight", [2**31, -(2**31) - 1])
def test_a_weight_that_cannot_be_sent_is_named(client: Client, server: FakeServer, weight: int) -> None:
    with pytest.raises(InvalidArgument, match="weight is out of range"):
        client.set_traffic(FAMILY, {"v1": weight})
    assert server.called("SetTraffic") == []


def test_is_gone_once_deleted_but_not_from_the_history(client: Client) -> None:
    client.set_traffic(FAMILY, {"v1": 10_000})
    assert client.delete_traffic(FAMILY, expected_revision=4) == 5
    with pytest.raises(TrafficNotFound):
        client.get_traffic(FAMILY)
    with pytest.raises(TrafficNotFound):
        client.delete_traffic(FAMILY)
    assert client.get_traffic(FAMILY, as_of=4).weights == {"v1": 10_000}
    with pytest.raises(RevisionInFuture):
        client.get_traffic(FAMILY, as_of=6)


def test_lists_page_by_page(client: Client, server: FakeServer) -> None:
    for number in range(3):
        server.add(f"a/s{number}/prod/v1", "https://v1.internal")
        client.set_traffic(f"a/s{number}/prod", {"v1": 10_000})
    server.largest_page = 2
    client.set_traffic(FAMILY, {"v1": 10_000})
    assert [str(each.key) for each in client.list_traffic()] == ["a/s0/prod", "a/s1/prod", "a/s2/prod", FAMILY]
    assert [str(each.key) for each in client.list_traffic(tenant="a", service="s1", env="prod")] == ["a/s1/prod"]


def test_is_tried_again_under_the_same_id(client: Client, server: FakeServer) -> None:
    server.fail("SetTraffic", Failure(grpc.StatusCode.UNAVAILABLE, "later", "STORE_UNAVAILABLE"))
    client.set_traffic(FAMILY, {"v1": 10_000})
    first, second = server.called("SetTraffic")
    assert first.request == second.request


async def test_does_the_same_in_asyncio(async_client: AsyncClient) -> None:
    traffic = await async_client.set_traffic(FAMILY, {"v1": 10_000})
    assert await async_client.get_traffic(FAMILY) == traffic
    assert [each async for each in async_client.list_traffic()] == [traffic]
    assert await async_client.delete_traffic(FAMILY) == 5
