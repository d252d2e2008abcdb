"""What only Envoys have: names without regard to case, callers by plain HTTP, and families that they select."""

import http.client
from collections.abc import Iterator

import grpc
import pytest

from pointsman import xds
from pointsman.xds.options import Program
from tests.support.waiting import eventually
from tests.support.xds_clients.clients import XdsClient, wait_for_door, xds_client
from tests.support.xds_clients.fleet import OK, Fleet

NOT_FOUND = grpc.StatusCode.NOT_FOUND
RATE = 500.0
CUT_OVERS = 4


@pytest.fixture(scope="module")
def kinds() -> tuple[Program, ...]:
    return (Program.ENVOY,)


@pytest.fixture
def envoy(shared: Fleet) -> Iterator[XdsClient]:
    client = shared.clients[Program.ENVOY]
    yield client
    client.probe.drop_all()


def get(client: XdsClient, key: str) -> tuple[int, str]:
    """Get / of a route by HTTP/1.1, as curl does."""
    connection = http.client.HTTPConnection(client.door, timeout=20)
    try:
        connection.request("GET", "/", headers={"host": xds.name(key)})
        response = connection.getresponse()
        return response.status, response.read().decode()
    finally:
        connection.close()


def test_of_names_that_differ_in_case_one_is_served_and_no_other_name_suffers(
    shared: Fleet, envoy: XdsClient, family: str
) -> None:
    small, capital = f"{family}/v1", f"{family}/V1"
    other = f"{shared.family()}/v1"
    shared.api.create(other, shared.urls["b3"])
    envoy.call("other", other, rate=100)
    envoy.probe.wait("other", OK, "b3")
    envoy.probe.reset("other")

    shared.api.create(capital, shared.urls["b1"])
    envoy.call("name", capital)
    envoy.probe.wait("name", OK, "b1")
    shared.api.create(small, shared.urls["b2"])
    envoy.probe.wait("name", OK, "b2")
    shared.api.delete(small)
    envoy.probe.wait("name", OK, "b1")

    # Had Envoy refused them together, it would not have heard of this one.
    shared.api.deactivate(other)
    envoy.probe.wait("other", NOT_FOUND)
    shared.api.activate(other)
    envoy.probe.wait("other", OK, "b3")


def test_by_http_what_is_not_live_is_404(shared: Fleet, envoy: XdsClient, family: str) -> None:
    key = f"{family}/v1"
    assert get(envoy, key)[0] == 404
    shared.api.create(key, shared.urls["b1"], active=False)
    assert eventually(lambda: get(envoy, key) == (404, "nothing is live under this name\n"))


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_cut_over_between_paths_mixes_none_with_the_host_of_another(
    shared: Fleet, envoy: XdsClient, family: str, host: str
) -> None:
    versions = {"b1": "one", "b2": "two", "b3": ""}
    for backend, path in versions.items():
        url = f"{shared.urls[backend].replace('127.0.0.1', host)}/{path}"
        shared.api.create(f"{family}/{backend}", url, active=backend == "b1")
    answers = {backend: f"{backend}/{path}".rstrip("/") for backend, path in versions.items()}
    envoy.call("family", family, rate=RATE)
    envoy.probe.wait("family", OK, answers["b1"])
    envoy.probe.reset("family")
    for backend in ("b2", "b3", "b1") * CUT_OVERS:
        shared.api.activate(f"{family}/{backend}", exclusive=True)
        envoy.probe.wait("family", OK, answers[backend])
    shared.api.set_traffic(family, {"b1": 10_000})
    for backend in ("b2", "b3"):
        shared.api.activate(f"{family}/{backend}")
    for weights in ({"b1": 6_000, "b2": 4_000}, {"b2": 6_000, "b1": 4_000}, {"b3": 10_000}):
        shared.api.set_traffic(family, weights)
        for backend in weights:
            envoy.probe.wait("family", OK, answers[backend])
    assert {code for code, _ in envoy.probe.summary("family")} == {OK}
    assert {backend for _, backend in envoy.probe.summary("family")} == {*answers.values()}


def test_it_hears_of_the_families_that_it_selects(shared: Fleet, family: str) -> None:
    tenant, service, _ = family.split("/")
    keys = {name: f"{tenant}/{name}/prod/v1" for name in (service, "search")}
    for key in keys.values():
        shared.api.create(key, shared.urls["b1"])
    with xds_client(Program.ENVOY, shared.server.plane, families=(f"{tenant}/{service}/*",)) as client:
        wait_for_door(client)
        for name, key in keys.items():
            client.call(name, key)
        client.probe.wait(service, OK, "b1")
        client.probe.wait("search", NOT_FOUND)
        shared.api.create(f"{tenant}/{service}/test/v1", shared.urls["b2"])
        client.call("new", f"{tenant}/{service}/test")
        client.probe.wait("new", OK, "b2")
