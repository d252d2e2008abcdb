"""List and ListChanges, from outside."""

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
