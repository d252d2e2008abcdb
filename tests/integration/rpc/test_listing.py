"""List and ListChanges, by a client."""

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from tests.support.refusals import refused

URL = "https://payments.internal:8443"


@pytest.fixture
def table(grpc_stub, key):
    """Twelve routes of one tenant: two services × two envs × three versions, of which v3 is inactive."""
    for service in ("b", "a"):
        for env in ("prod", "dev"):
            for version in ("v1", "v2", "v3"):
                where = RouteKey(tenant=key.tenant, service=service, env=env, version=version)
                grpc_stub.Create(pb.CreateRequest(key=where, url=URL, active=version != "v3"))
    return key.tenant


def walk(call, request, field):
    items, pages = [], 0
    while True:
        page = call(request)
        items += getattr(page, field)
        pages += 1
        if not page.next_page_token:
            return items, pages
        request.page_token = page.next_page_token


def test_routes_come_in_key_order_page_by_page_without_loss(grpc_stub, table):
    whole, _ = walk(grpc_stub.List, pb.ListRequest(tenant=table), "routes")
    paged, pages = walk(grpc_stub.List, pb.ListRequest(tenant=table, page_size=5), "routes")

    assert paged == whole
    assert pages == 3
    names = [(route.key.service, route.key.env, route.key.version) for route in whole]
    assert names == sorted(names)
    assert len(names) == 12


def test_the_last_page_has_no_token_even_when_it_is_full(grpc_stub, table):
    assert not grpc_stub.List(pb.ListRequest(tenant=table, page_size=12)).next_page_token


def test_every_filter_narrows(grpc_stub, table):
    def count(**fields):
        return len(grpc_stub.List(pb.ListRequest(tenant=table, **fields)).routes)

    assert count(service="a") == 6
    assert count(service="a", env="prod") == 3
    assert count(active=True) == 8
    assert count(active=False) == 4
    assert count(service="zzz") == 0


@pytest.fixture
def large_table(grpc_stub, key):
    """A hundred large routes, 5 MB in all."""
    labels = {f"label-{number}": "語" * 256 for number in range(64)}
    keys = [RouteKey(tenant=key.tenant, service="a", env="prod", version=f"v{number:03}") for number in range(100)]
    url = f"{URL}/" + "x" * (2047 - len(URL))
    for start in range(0, 100, 10):
        routes = [
            pb.ImportedRoute(key=each, url=url, labels=pb.Labels(labels=labels)) for each in keys[start : start + 10]
        ]
        grpc_stub.Import(pb.ImportRequest(routes=routes))
    return keys


def test_what_is_larger_than_clients_take_comes_in_more_pages(grpc_stub, large_table):
    tenant = large_table[0].tenant
    # The client of this test has gRPC's default limit of 4 MB.
    routes, route_pages = walk(grpc_stub.List, pb.ListRequest(tenant=tenant), "routes")
    changes, _ = walk(grpc_stub.ListChanges, pb.ListChangesRequest(tenant=tenant), "changes")
    backward, _ = walk(grpc_stub.ListChanges, pb.ListChangesRequest(tenant=tenant, newest_first=True), "changes")

    assert [route.key for route in routes] == large_table
    assert [change.key for change in changes] == large_table
    assert [change.key for change in backward] == large_table[::-1]
    assert route_pages == 2


@pytest.mark.parametrize("consistency", [pb.CONSISTENCY_FULLY_CONSISTENT, pb.CONSISTENCY_MINIMIZE_LATENCY])
def test_a_batch_that_is_larger_than_clients_take_leaves_out_the_rest(grpc_stub, large_table, consistency):
    rest, answered = list(large_table), []
    while rest:
        results = grpc_stub.BatchResolve(pb.BatchResolveRequest(keys=rest, consistency=consistency)).results
        assert [result.key for result in results] == rest
        left_out = [result for result in results if not result.HasField("route")]
        assert all(b"RESPONSE_TOO_LARGE" in result.status.details[0].value for result in left_out)
        answered += [result.route.key for result in results if result.HasField("route")]
        rest = [result.key for result in left_out]

    assert sorted(map(str, answered)) == sorted(map(str, large_table))


def test_changes_come_in_revision_order_from_either_end(grpc_stub, table):
    forward, _ = walk(grpc_stub.ListChanges, pb.ListChangesRequest(tenant=table, page_size=5), "changes")
    backward, _ = walk(
        grpc_stub.ListChanges, pb.ListChangesRequest(tenant=table, page_size=5, newest_first=True), "changes"
    )

    revisions = [change.revision for change in forward]
    assert revisions == sorted(revisions)
    assert len(revisions) == 12
    assert [change.revision for change in backward] == revisions[::-1]


def test_changes_between_two_revisions(grpc_stub, table):
    everything = grpc_stub.ListChanges(pb.ListChangesRequest(tenant=table)).changes
    after, before = everything[2].revision, everything[6].revision

    between = grpc_stub.ListChanges(
        pb.ListChangesRequest(tenant=table, after_revision=after, before_revision=before)
    ).changes

    assert list(between) == list(everything[3:6])


def test_changes_by_key_and_actor(grpc_stub, table):
    def count(**fields):
        return len(grpc_stub.ListChanges(pb.ListChangesRequest(tenant=table, **fields)).changes)

    assert count(service="a", env="dev", version="v1") == 1
    assert count(actor="anonymous") == 12
    assert count(actor="nobody") == 0


@pytest.mark.parametrize("token", ["x", "????", "AAAA", "A" * 1000])
def test_a_page_token_of_anything_else_is_refused(grpc_stub, table, token):
    for call, request in ((grpc_stub.List, pb.ListRequest), (grpc_stub.ListChanges, pb.ListChangesRequest)):
        refusal = refused(call, request(tenant=table, page_token=token))
        assert refusal.code is grpc.StatusCode.INVALID_ARGUMENT
        assert list(refusal.fields) == ["page_token"]


def test_a_page_token_of_another_query_is_refused(grpc_stub, table):
    token = grpc_stub.List(pb.ListRequest(tenant=table, page_size=5)).next_page_token

    refusal = refused(grpc_stub.List, pb.ListRequest(tenant=table, service="a", page_token=token))

    assert list(refusal.fields) == ["page_token"]
    assert len(grpc_stub.List(pb.ListRequest(tenant=table, page_size=3, page_token=token)).routes) == 3
