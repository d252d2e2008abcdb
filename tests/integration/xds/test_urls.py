"""Where URLs lead: addresses, names, TLS with the right certificate only, and paths; in every kind of client."""

from pathlib import Path

import grpc
import pytest

from pointsman.xds.options import Program
from tests.support.certificates import Authority, Pair
from tests.support.xds_clients.clients import GRPC_KINDS, XdsClient
from tests.support.xds_clients.fleet import OK, Fleet

pytestmark = [pytest.mark.go, pytest.mark.node]


def port(url: str) -> str:
    return url.rpartition(":")[2]


@pytest.fixture(scope="module")
def ipv6(shared: Fleet) -> int:
    return shared.backends.open("v6", "[::1]:0")


def write(pair: Pair, directory: Path) -> tuple[Path, Path]:
    cert, key = directory / "tls.crt", directory / "tls.key"
    cert.write_bytes(pair.cert)
    key.write_bytes(pair.key)
    return cert, key


@pytest.fixture(scope="module")
def right(shared: Fleet, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The port of a backend with a certificate for localhost and 127.0.0.1."""
    return shared.backends.open("right", tls=write(shared.ca.server(), tmp_path_factory.mktemp("right")))


@pytest.fixture(scope="module")
def right_v6(shared: Fleet, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The port of a backend with a certificate for ::1."""
    files = write(shared.ca.server("::1"), tmp_path_factory.mktemp("v6"))
    return shared.backends.open("right_v6", "[::1]:0", tls=files)


@pytest.fixture(scope="module")
def wrong(shared: Fleet, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The port of a backend whose certificate is of the same authority, for another host."""
    pair = shared.ca.client(dns=("elsewhere.test",))
    return shared.backends.open("wrong", tls=write(pair, tmp_path_factory.mktemp("wrong")))


@pytest.fixture(scope="module")
def stranger(shared: Fleet, tmp_path_factory: pytest.TempPathFactory) -> int:
    """The port of a backend whose certificate is of an authority that nobody trusts."""
    return shared.backends.open("stranger", tls=write(Authority().server(), tmp_path_factory.mktemp("stranger")))


def test_addresses_and_names(shared: Fleet, client: XdsClient, family: str, ipv6: int) -> None:
    one = port(shared.urls["b1"])
    urls = {"v4": f"http://127.0.0.1:{one}", "v6": f"http://[::1]:{ipv6}", "name": f"http://localhost:{one}"}
    for version, url in urls.items():
        shared.api.create(f"{family}/{version}", url)
        client.call(version, f"{family}/{version}")
    for version in urls:
        client.probe.wait(version, OK, "v6" if version == "v6" else "b1")


def test_a_url_changes_between_addresses_and_names(shared: Fleet, client: XdsClient, family: str) -> None:
    key = f"{family}/v1"
    shared.api.create(key, shared.urls["b1"])
    client.call("route", key)
    client.probe.wait("route", OK, "b1")
    client.probe.reset("route")
    shared.api.update(key, url=f"http://localhost:{port(shared.urls['b2'])}")
    client.probe.wait("route", OK, "b2")
    shared.api.update(key, url=f"http://localhost:{port(shared.urls['b3'])}")
    client.probe.wait("route", OK, "b3")
    shared.api.update(key, url=shared.urls["b1"])
    client.probe.wait("route", OK, "b1")
    assert set(client.probe.summary("route")) == {(OK, "b1"), (OK, "b2"), (OK, "b3")}


def test_https_is_tls_to_the_host_of_the_url_alone(
    shared: Fleet, client: XdsClient, family: str, right: int, right_v6: int, wrong: int, stranger: int
) -> None:
    urls = {
        "v6": f"https://[::1]:{right_v6}",
        "right": f"https://localhost:{right}",
        "address": f"https://127.0.0.1:{right}",
        "wrong": f"https://localhost:{wrong}",
        "stranger": f"https://localhost:{stranger}",
    }
    for version, url in urls.items():
        shared.api.create(f"{family}/{version}", url)
        client.call(version, f"{family}/{version}", credentials="xds")
    for version in ("right", "address"):
        client.probe.wait(version, OK, "right")
    client.probe.wait("v6", OK, "right_v6")
    for version in ("wrong", "stranger"):
        client.probe.wait(version, grpc.StatusCode.UNAVAILABLE)


@pytest.mark.parametrize("kind", GRPC_KINDS)
def test_without_credentials_of_xds_https_is_not_reached(
    shared: Fleet, client: XdsClient, family: str, right: int
) -> None:
    key = f"{family}/v1"
    shared.api.create(key, f"https://localhost:{right}")
    client.call("plain", key)
    client.probe.wait("plain", grpc.StatusCode.UNAVAILABLE)


def test_with_credentials_of_xds_http_is_plain_text(shared: Fleet, client: XdsClient, family: str, right: int) -> None:
    key = f"{family}/v1"
    shared.api.create(key, shared.urls["b1"])
    client.call("both", key, credentials="xds")
    client.probe.wait("both", OK, "b1")
    shared.api.update(key, url=f"https://localhost:{right}")
    client.probe.wait("both", OK, "right")
    shared.api.update(key, url=shared.urls["b2"])
    client.probe.wait("both", OK, "b2")


def test_a_path_is_added_by_envoy_and_refused_in_words_elsewhere(
    shared: Fleet, client: XdsClient, kind: Program, family: str
) -> None:
    key = f"{family}/v1"
    shared.api.create(key, f"{shared.urls['b1']}/inner/service")
    client.call("path", key)
    if kind is Program.ENVOY:
        client.probe.wait("path", OK, "b1/inner/service")
    else:
        client.probe.wait("path", grpc.StatusCode.FAILED_PRECONDITION)
    shared.api.update(key, url=f"{shared.urls['b1']}/")
    client.probe.wait("path", OK, "b1")
