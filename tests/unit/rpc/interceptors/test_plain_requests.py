"""What is plainly valid is valid: the short look at an Import lets nothing pass that protovalidate would refuse."""

import string

import protovalidate
import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.rpc.interceptors.plain_requests import is_plain_import

VALIDATOR = protovalidate.Validator()
# Texts near the borders of the rules: good ones, and what could be taken for a line of its own.
PARTS = st.one_of(
    st.sampled_from(["a", "team-a", "v1.2_3", "a" * 63, "a" * 64, "-a", "a-", "", "a\n", "a\nb", "a:b", "é", "a b"]),
    st.text(string.ascii_letters + "-.\n:/", max_size=5),
)
URLS = st.one_of(
    st.sampled_from(["https://a", "http://a\nb", "", "a", "x:" + "y" * 2047, "x:\nb\nc\nd\ne\nhttps://f", "a:\n", ":"]),
    st.text(string.ascii_letters + "-.\n:/", max_size=8),
)
KEYS = st.builds(route_pb2.RouteKey, tenant=PARTS, service=PARTS, env=PARTS, version=PARTS)
LABELS = st.dictionaries(
    st.sampled_from(["team", "a/b", "", "-", "a" * 64]), st.sampled_from(["", "x", "\n", "y" * 257]), max_size=2
)
ROUTES = st.builds(
    pb.ImportedRoute,
    key=st.one_of(st.none(), KEYS),
    url=URLS,
    labels=st.one_of(st.none(), st.builds(pb.Labels, labels=LABELS)),
    active=st.sampled_from([None, True, False]),
    expected_revision=st.sampled_from([0, 17, 2**63 - 1, -1, -(2**63)]),
)
REQUESTS = st.builds(
    pb.ImportRequest,
    routes=st.lists(ROUTES, max_size=4),
    existing=st.sampled_from([0, 1, 2, 3, 4, 77]),
    request_id=st.sampled_from(["", "run:1", " ", "a" * 65]),
    reason=st.sampled_from(["", "why", "\0", "a" * 1025]),
)


def of(*routes: pb.ImportedRoute) -> pb.ImportRequest:
    return pb.ImportRequest(routes=routes, request_id="run:1", reason="the move")


def route(key: str = "team-a/payments/prod/v1", url: str = "https://payments.internal:8443/a?b=c") -> pb.ImportedRoute:
    tenant, service, env, version = key.split("/")
    named = route_pb2.RouteKey(tenant=tenant, service=service, env=env, version=version)
    return pb.ImportedRoute(key=named, url=url, labels=pb.Labels(labels={"tier": "gold"}))


@given(REQUESTS)
def test_what_is_plain_import_has_no_violation(request: pb.ImportRequest) -> None:
    if is_plain_import(VALIDATOR, request):
        assert not VALIDATOR.collect_violations(request)


@pytest.mark.parametrize("url", ["https://payments.internal:8443/a?b=c", "http://[::1]:80", "grpc://a/" + "b" * 1000])
def test_usual_routes_are_plainly_valid(url: str) -> None:
    assert is_plain_import(VALIDATOR, of(*(route(f"team-a/s{number}/prod/v1", url) for number in range(10))))


def test_a_revision_may_be_expected_but_none_before_the_first() -> None:
    expecting = route()
    for revision, plain in ((17, True), (-1, False)):
        expecting.expected_revision = revision
        assert is_plain_import(VALIDATOR, of(route(), expecting)) is plain


def test_lines_that_add_up_are_not_taken_for_routes() -> None:
    # Two broken routes, whose lines are those of two whole ones and more.
    longer = route(url="https://a\nb\nc\nd\ne\nhttps://f")
    shifted = route("a\nb/c/d/e", url="f")
    for request in (of(longer), of(longer, shifted), of(shifted, shifted)):
        assert not is_plain_import(VALIDATOR, request)


def test_none_and_too_many_are_left_to_the_rules() -> None:
    assert not is_plain_import(VALIDATOR, of())
    assert not is_plain_import(VALIDATOR, of(*[route()] * 10_001))
