"""What is sent for a name, in words and as JSON."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resources.build import build
from pointsman_server.xds.resources.explain import PLAIN, Explanation, explain
from pointsman_server.xds.targets import UNKNOWN, Target, Verdict, Version, of_family, of_route
from pointsman_server.xds.views import ClientKind, View
from tests.support.xds_targets import any_targets, division_of

ROUTE, FAMILY = "v1~prod~payments~team-a", "prod~payments~team-a"
PATH, TLS, TEXT = "https://payments.internal/api", "https://payments.internal", "http://127.0.0.1:1"


def of(kind: ClientKind, url: str) -> Explanation:
    return explain(PLAIN[kind], ROUTE, of_route(Version("v1", url, active=True)))


def words(explanation: Explanation) -> str:
    return "\n".join(explanation.limitations)


def test_what_is_not_live_has_the_reason_of_the_table() -> None:
    explanation = explain(PLAIN[ClientKind.GRPC], ROUTE, UNKNOWN)

    assert explanation[:3] == (Verdict.NOT_LIVE, UNKNOWN.reason, ())


def test_a_path_is_a_reason_for_grpc_and_a_limitation_for_envoy() -> None:
    grpc, envoy = of(ClientKind.GRPC, PATH), of(ClientKind.ENVOY, PATH)

    assert grpc.verdict is Verdict.NOT_CARRIED
    assert grpc.reason.startswith("v1: its URL has a path")
    assert envoy.verdict is Verdict.LIVE
    assert envoy.reason == "the route is active"
    assert "v1: Envoy puts /api/ before the path" in words(envoy)


def test_https_says_what_the_certificate_and_the_credentials_must_be() -> None:
    assert "use XdsCredentials; the certificate must be valid for payments.internal" in words(of(ClientKind.GRPC, TLS))
    assert "names no certificate provider" in words(of(ClientKind.GRPC, TLS))
    assert "of a CA in /etc/ssl/certs/ca-certificates.crt" in words(of(ClientKind.ENVOY, TLS))
    provided = explain(View(ca_provider="roots"), ROUTE, of_route(Version("v1", TLS, active=True)))
    assert "names no certificate provider" not in words(provided)


def test_plaintext_says_what_the_credentials_must_be() -> None:
    assert "use insecure credentials" in words(of(ClientKind.GRPC, TEXT))
    assert of(ClientKind.ENVOY, TEXT).limitations == ()


def test_names_that_differ_in_case_are_a_limitation_of_envoy() -> None:
    for kind in ClientKind:
        explanation = explain(PLAIN[kind], "Prod~a~b", UNKNOWN, served_instead="prod~a~b")
        assert ("differs from prod~a~b in case only" in words(explanation)) is (kind is ClientKind.ENVOY)


@pytest.mark.parametrize("kind", ClientKind)
def test_families_say_how_they_are_divided(kind: ClientKind) -> None:
    versions = [Version("v1", TEXT, active=True), Version("v2", TEXT, active=True), Version("v3", PATH, active=True)]
    division = division_of({"v1": 9_000, "v2": 1_000}, "v3")
    explanation = explain(PLAIN[kind], FAMILY, of_family(versions, division))

    assert explanation.reason == "by the traffic, in basis points: v1 9000, v2 1000"
    assert "each call is divided by chance" in words(explanation)
    assert "a fallback is used" not in words(explanation)
    grpc = "v3 is no fallback: its URL has a path"
    envoy = "v3 is no fallback: the path of its URL is not that of every version that has a weight"
    assert (grpc if kind is ClientKind.GRPC else envoy) in words(explanation)


@pytest.mark.parametrize("kind", ClientKind)
def test_families_say_when_a_fallback_is_used(kind: ClientKind) -> None:
    versions = [Version("v1", TEXT, active=True), Version("v2", TEXT, active=True)]
    explanation = explain(PLAIN[kind], FAMILY, of_family(versions, division_of({"v1": 10_000}, "v2")))

    assert "a fallback is used" in words(explanation)
    assert "is no fallback" not in words(explanation)


def test_resources_are_json_with_the_names_of_the_api() -> None:
    target = of_route(Version("v1", TEXT, active=True))
    explanation = explain(PLAIN[ClientKind.GRPC], ROUTE, target)

    assert [resource.kind for resource in explanation.resources] == list(ResourceType)
    listener, route, cluster, endpoints = explanation.resources
    manager = listener.content["api_listener"]["api_listener"]
    assert manager["@type"].endswith(".HttpConnectionManager")
    assert manager["http_filters"][0]["typed_config"]["@type"].endswith(".HTTPFault")
    assert route.content["virtual_hosts"][0]["routes"][0]["route"] == {"cluster": ROUTE}
    assert cluster.content["connect_timeout"] == "5s"
    assert endpoints.content["cluster_name"] == ROUTE


def test_versions_are_those_that_are_sent() -> None:
    target = of_route(Version("v1", TEXT, active=True))

    for resource in explain(PLAIN[ClientKind.GRPC], ROUTE, target).resources:
        built = build(PLAIN[ClientKind.GRPC], resource.kind, resource.name, target)
        assert resource.version == f"{built.version:016x}"


@given(kind=st.sampled_from(ClientKind), root=st.sampled_from([ROUTE, FAMILY, "no name"]), target=any_targets())
@settings(deadline=None)
def test_everything_is_explained(kind: ClientKind, root: str, target: Target) -> None:
    explanation = explain(PLAIN[kind], root, target)

    assert explanation.reason
    assert all(explanation.limitations)
    assert json.loads(json.dumps([resource.content for resource in explanation.resources]))
