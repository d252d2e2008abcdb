"""``pointsman xds clients`` and ``explain`` ask a real server."""

import json
from collections.abc import Iterator
from pathlib import Path

import grpc
import pytest

from pointsman import Client
from tests.e2e.xds.conftest import NAME, Service, envoy, printed, started
from tests.support.processes import free_port, run
from tests.support.waiting import eventually
from tests.support.xds_clients.probes import Probe

pytestmark = pytest.mark.engines


@pytest.fixture
def checkout(service: Service, tmp_path: Path) -> Iterator[Probe]:
    """A client in Python."""
    environ = printed("python", tmp_path / "b.json", "--xds", service.xds, "--node-id", "checkout-7")
    with started("python", environ) as probe:
        yield probe


def listed(service: Service, *options: str) -> list[dict[str, object]]:
    done = run("pointsman", "xds", "clients", "--xds", service.xds, "--json", *options)
    assert done.returncode == 0, done.stderr
    [server] = json.loads(done.stdout)["servers"]
    assert server["server"] == service.xds
    return [client for client in server["clients"] if client["acknowledged_revision"] == server["revision"]]


def names(client: dict[str, object]) -> list[str]:
    return list(client["names"])  # type: ignore[call-overload]


def test_a_client_is_listed_with_what_it_has(service: Service, checkout: Probe) -> None:
    checkout.target("a", f"xds:///{NAME}")
    checkout.target("b", "xds:///v9~prod~payments~team-a")
    checkout.wait("a", grpc.StatusCode.OK)
    checkout.wait("b", grpc.StatusCode.NOT_FOUND)

    # gRFC A71: grpcio has a stream for each target.
    assert eventually(lambda: sorted(map(names, listed(service))) == [[NAME], ["v9~prod~payments~team-a"]])
    [client] = listed(service, "--name", "v9~")
    assert (client["node_id"], client["kind"], client["subject"]) == ("checkout-7", "grpc", "anonymous")
    assert "gRPC C-core" in str(client["user_agent"])
    assert names(client) == ["v9~prod~payments~team-a"]
    assert listed(service, "--name", "no~such") == []

    table = run("pointsman", "xds", "clients", "--xds", service.xds)
    assert table.returncode == 0
    assert "checkout-7" in table.stdout
    assert table.stderr.startswith(f"{service.xds}: 2 clients, at revision ")


def test_a_refusal_is_told_in_the_words_of_the_client(service: Service, tmp_path: Path) -> None:
    # Its node promises a certificate provider that its bootstrap does not have.
    environ = printed("python", tmp_path / "b.json", "--xds", service.xds, "--https-ca-file", "/no/such.pem")
    document = json.loads((tmp_path / "b.json").read_text())
    del document["certificate_providers"]
    (tmp_path / "b.json").write_text(json.dumps(document))
    with started("python", environ) as probe:
        probe.target("https", "xds:///v1~prod~vault~team-a", credentials="xds")
        probe.wait("https", grpc.StatusCode.UNAVAILABLE)

        def told() -> str:
            done = run("pointsman", "xds", "clients", "--xds", service.xds)
            return done.stdout

        assert eventually(lambda: "refused CDS at " in told())
        assert "pointsman_ca" in told()


def test_an_envoy_is_listed(service: Service, tmp_path: Path) -> None:
    options = ("--listen", f"127.0.0.1:{free_port()}", "--admin", "127.0.0.1:0", "--node-id", "edge-1")
    printed("envoy", tmp_path / "envoy.json", "--xds", service.xds, *options)
    with envoy(tmp_path / "envoy.json", tmp_path):
        assert eventually(
            lambda: [(each["node_id"], each["kind"]) for each in listed(service)] == [("edge-1", "envoy")]
        )


def test_explain_says_what_clients_get(service: Service) -> None:
    with Client(service.api, timeout=30) as client:
        client.create("team-a/manual/prod/v1", "https://manual.team-a.internal/api")

    def explained(*options: str) -> dict[str, object]:
        done = run("pointsman", "xds", "explain", "team-a/manual/prod/v1", "--xds", service.xds, "--json", *options)
        assert done.returncode == 0, done.stderr
        return dict(json.loads(done.stdout))

    def statuses() -> object:
        return [(each["kind"], each["status"]) for each in explained()["explanations"]]  # type: ignore[attr-defined]

    assert eventually(lambda: statuses() == [("grpc", "FAILED_PRECONDITION"), ("envoy", "OK")])
    [envoys] = explained("--kind", "envoy", "--resources")["explanations"]  # type: ignore[misc]
    assert {each["type"] for each in envoys["resources"]} >= {"LDS", "RDS", "CDS"}


def test_the_address_of_the_api_is_told_from_that_of_xds(service: Service) -> None:
    done = run("pointsman", "xds", "clients", "--xds", service.api)
    assert done.returncode == 1
    assert done.stderr.splitlines()[0].startswith(f"error: {service.api} does not serve xDS")


def test_a_key_that_is_none_is_a_usage_error(service: Service) -> None:
    done = run("pointsman", "xds", "explain", "team a/x", "--xds", service.xds)
    assert done.returncode == 2
    assert "tenant/service/env" in done.stderr
