"""Every name of every type has a resource, for every client and whatever it leads to."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman_server.xds.names import is_family, root_of
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resources.build import build, message
from pointsman_server.xds.resources.clusters import cluster_names, members_of
from pointsman_server.xds.resources.verdicts import fallbacks_of, verdict_of
from pointsman_server.xds.targets import UNKNOWN, Slot, Target, Verdict
from pointsman_server.xds.views import ClientKind, View
from tests.support.xds_messages import content
from tests.support.xds_targets import any_targets

ROOTS = ("v1~prod~payments~team-a", "prod~payments~team-a", "", "no name", "ü~~", "a~b~c~d~e", "pointsman")
SUFFIXES = ("", "~~1", "~~m0", "~~k0", "~~f0", "~~f17", "~~x", "~~~~")
PREFIXES = ("", "xdstp://pointsman/envoy.config.listener.v3.Listener/", "xdstp:")
NAMES = st.builds("{}{}{}".format, *map(st.sampled_from, (PREFIXES, ROOTS, SUFFIXES))) | st.text(max_size=600)
VIEWS = st.sampled_from(
    [
        View(),
        View(ca_provider="roots"),
        View(marks=True),
        View(ClientKind.ENVOY, ca_file="/ca.pem", listen="[::1]:1"),
        View(ClientKind.ENVOY),
    ]
)
LIVE = Target(Verdict.LIVE, (Slot("v1", "http://127.0.0.1:1"),))
NAMED = Target(Verdict.LIVE, (Slot("v1", "http://payments.internal"),))
TYPES = st.sampled_from(ResourceType)


@given(view=VIEWS, kind=TYPES, name=NAMES, target=any_targets())
@settings(deadline=None)
def test_every_name_has_a_resource_that_is_called_so(view: View, kind: ResourceType, name: str, target: Target) -> None:
    resource = build(view, kind, name, target)

    parsed = content(resource)
    assert resource.name == (parsed.cluster_name if kind is ResourceType.EDS else parsed.name) == name
    assert parsed == message(view, kind, name, target)


@given(view=VIEWS, kind=TYPES, name=NAMES, target=any_targets())
@settings(deadline=None)
def test_equal_targets_have_equal_versions(view: View, kind: ResourceType, name: str, target: Target) -> None:
    copied = Target(target.verdict, target.slots, target.fallbacks, reason="another")

    assert build(view, kind, name, target) == build(view, kind, name, copied)


@given(view=VIEWS, name=st.sampled_from(ROOTS[:2]), one=any_targets(), other=any_targets())
@settings(deadline=None)
def test_another_verdict_is_another_version_of_the_route(view: View, name: str, one: Target, other: Target) -> None:
    before, after = (build(view, ResourceType.RDS, name, target) for target in (one, other))

    if verdict_of(view.kind, one) is not verdict_of(view.kind, other):
        assert before.version != after.version
    assert before.live is (verdict_of(view.kind, one) is Verdict.LIVE)


@given(view=VIEWS, root=st.sampled_from(ROOTS[:2]), target=any_targets())
@settings(deadline=None)
def test_what_routes_and_clusters_name_is_of_the_root_and_listed(view: View, root: str, target: Target) -> None:
    routes = message(view, ResourceType.RDS, root, target).virtual_hosts[0].routes
    named = {cluster.name for route in routes for cluster in route.route.weighted_clusters.clusters}
    named |= {route.route.cluster for route in routes if route.route.cluster}
    named |= {member for name in named for member in members_of(view, name, target)}

    assert {root_of(name) for name in named} == {root}
    if view.kind is ClientKind.ENVOY:
        assert named <= set(cluster_names(view, root, target))


@given(view=VIEWS, root=st.sampled_from(ROOTS[:2]), target=any_targets())
@settings(deadline=None)
def test_calls_that_are_let_through_have_endpoints(view: View, root: str, target: Target) -> None:
    if verdict_of(view.kind, target) is not Verdict.LIVE:
        return
    for name in cluster_names(view, root, target):
        if not members_of(view, name, target):
            cluster = message(view, ResourceType.CDS, name, target)
            endpoints = cluster.load_assignment.endpoints or message(view, ResourceType.EDS, name, target).endpoints
            fallbacks = fallbacks_of(view.kind, target) if view.kind is ClientKind.ENVOY and is_family(root) else ()
            assert len(endpoints) == 1 + len(fallbacks)


def test_a_cluster_of_envoy_closes_when_its_slot_has_another() -> None:
    one, other = (Target(Verdict.LIVE, (Slot("v1", f"http://127.0.0.1:1/{path}"),)) for path in ("one", "other"))
    view = View(ClientKind.ENVOY)
    [name] = cluster_names(view, ROOTS[0], one)

    for kind in (ResourceType.CDS, ResourceType.EDS):
        assert not build(view, kind, name, one).closed
        assert build(view, kind, name, other).closed


@given(view=VIEWS, root=st.sampled_from(ROOTS[:2]), target=any_targets())
@settings(deadline=None)
def test_an_introduction_is_called_alike_and_differs(view: View, root: str, target: Target) -> None:
    resource = build(view, ResourceType.RDS, root, target)

    assert bool(resource.introduction) is bool(resource.needs)
    if resource.introduction:
        assert resource.live
        assert resource.introduction.name == resource.name
        assert resource.introduction.version != resource.version
        assert all(root_of(name) == root for _, name in resource.needs)


@pytest.mark.parametrize(
    ("kind", "target", "live"),
    [
        (ClientKind.GRPC, LIVE, True),
        (ClientKind.ENVOY, LIVE, True),
        # The cluster is of another type, and has its endpoints itself.
        (ClientKind.GRPC, NAMED, False),
        (ClientKind.ENVOY, NAMED, False),
        # An Envoy would be without endpoints before it has the route that closes.
        (ClientKind.GRPC, UNKNOWN, True),
        (ClientKind.ENVOY, UNKNOWN, False),
    ],
)
def test_endpoints_are_kept_where_empty_ones_would_come_too_early(kind: ClientKind, target: Target, live: bool) -> None:
    assert build(View(kind), ResourceType.EDS, "v1~prod~payments~team-a", target).live is live
