"""What is plainly valid is valid: the short look at a large request lets nothing pass that would be refused."""

import string

import protovalidate
import pytest
from google.protobuf.duration_pb2 import Duration
from hypothesis import given
from hypothesis import strategies as st

from pointsman.v1 import route_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.traffic_methods_pb2 import DeleteTrafficRequest, SetTrafficRequest
from pointsman.v1.traffic_pb2 import TrafficTarget
from pointsman_server.rpc.interceptors.plain_requests import is_plain_commit, is_plain_import, violations_of_commit

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

REVISIONS = st.sampled_from([0, 17, -1])
# Mutations of a commit have no id and no reason of their own.
MORE = {"request_id": st.sampled_from(["", "", "1"]), "reason": st.sampled_from(["", "", "\0"])}
DRAIN = st.sampled_from([None, None, Duration(seconds=1), Duration(), Duration(seconds=-1)])
NAMES = {"tenant": PARTS, "service": PARTS, "env": PARTS}
TARGETS = st.builds(TrafficTarget, version=PARTS, weight=st.sampled_from([0, 1, 10_000, 10_001, -1]))
OF_KEY = {"key": st.one_of(st.none(), KEYS), **MORE}
MUTATIONS = st.one_of(
    st.builds(pb.Mutation),
    st.builds(pb.Mutation, create=st.builds(pb.CreateRequest, url=URLS, labels=LABELS, **OF_KEY)),
    st.builds(
        pb.Mutation,
        update=st.builds(
            pb.UpdateRequest,
            url=st.one_of(st.none(), URLS),
            labels=st.one_of(st.none(), st.builds(pb.Labels, labels=LABELS)),
            expected_revision=REVISIONS,
            allow_missing=st.booleans(),
            **OF_KEY,
        ),
    ),
    st.builds(pb.Mutation, activate=st.builds(pb.ActivateRequest, expected_revision=REVISIONS, **OF_KEY)),
    st.builds(
        pb.Mutation,
        deactivate=st.builds(pb.DeactivateRequest, expected_revision=REVISIONS, if_unused_for=DRAIN, **OF_KEY),
    ),
    st.builds(
        pb.Mutation, delete=st.builds(pb.DeleteRequest, expected_revision=REVISIONS, if_unused_for=DRAIN, **OF_KEY)
    ),
    st.builds(
        pb.Mutation,
        set_traffic=st.builds(
            SetTrafficRequest,
            targets=st.lists(TARGETS, max_size=2),
            fallbacks=st.lists(PARTS, max_size=2),
            expected_revision=REVISIONS,
            **NAMES,
            **MORE,
        ),
    ),
    st.builds(
        pb.Mutation, delete_traffic=st.builds(DeleteTrafficRequest, expected_revision=REVISIONS, **NAMES, **MORE)
    ),
)
COMMITS = st.builds(
    pb.CommitRequest,
    mutations=st.lists(MUTATIONS, max_size=3),
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


# Commits


def changing(key: str = "team-a/payments/prod/v1") -> list[pb.Mutation]:
    """One valid mutation of each kind."""
    tenant, service, env, version = key.split("/")
    named = route_pb2.RouteKey(tenant=tenant, service=service, env=env, version=version)
    family = {"tenant": tenant, "service": service, "env": env}
    whole = [TrafficTarget(version=version, weight=10_000)]
    return [
        pb.Mutation(create=pb.CreateRequest(key=named, url="https://a.internal:1/b?c=d", labels={"a": "b"})),
        pb.Mutation(update=pb.UpdateRequest(key=named, labels=pb.Labels())),
        pb.Mutation(activate=pb.ActivateRequest(key=named, expected_revision=7, exclusive=True)),
        pb.Mutation(deactivate=pb.DeactivateRequest(key=named)),
        pb.Mutation(delete=pb.DeleteRequest(key=named)),
        pb.Mutation(set_traffic=SetTrafficRequest(**family, targets=whole, fallbacks=["v2"])),
        pb.Mutation(delete_traffic=DeleteTrafficRequest(**family)),
    ]


@given(COMMITS)
def test_a_plainly_valid_commit_has_no_violation(request: pb.CommitRequest) -> None:
    if is_plain_commit(VALIDATOR, request):
        assert not [*VALIDATOR.collect_violations(request), *violations_of_commit(request)]


def test_usual_commits_are_plainly_valid() -> None:
    assert is_plain_commit(VALIDATOR, pb.CommitRequest(mutations=changing(), request_id="run:1", reason="the move"))
    assert is_plain_commit(VALIDATOR, pb.CommitRequest(mutations=changing() * 100))


@pytest.mark.parametrize("position", range(7))
def test_a_commit_with_a_broken_key_is_left_to_the_rules(position: int) -> None:
    mutations = changing()
    mutations[position] = changing("team-a/-/prod/v1")[position]
    assert not is_plain_commit(VALIDATOR, pb.CommitRequest(mutations=mutations))


def test_a_condition_and_none_and_too_many_are_left_to_the_rules() -> None:
    drained = pb.Mutation(delete=pb.DeleteRequest(key=changing()[4].delete.key, if_unused_for=Duration(seconds=1)))
    for mutations in ([drained], [], changing() * 143):
        assert not is_plain_commit(VALIDATOR, pb.CommitRequest(mutations=mutations))


def test_what_the_protos_do_not_say_is_named_by_index() -> None:
    key = changing()[0].create.key
    request = pb.CommitRequest(
        mutations=[
            *changing(),
            pb.Mutation(),
            pb.Mutation(create=pb.CreateRequest(key=key, request_id="1", reason="why")),
            pb.Mutation(delete_traffic=DeleteTrafficRequest(reason="why")),
        ]
    )
    violations = {each.field: each.description for each in violations_of_commit(request)}
    assert violations == {
        "mutations[7]": "must be one of the mutations",
        "mutations[8].create.request_id": "must be empty: request_id of the commit is for all of its mutations",
        "mutations[8].create.reason": "must be empty: reason of the commit is for all of its mutations",
        "mutations[9].delete_traffic.reason": "must be empty: reason of the commit is for all of its mutations",
    }
