"""grpc-go by grpcurl, the health probe and ghz, against a server process on each transport, in plaintext and by TLS."""

import json
import signal
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from pointsman.v1 import route_service_pb2
from pointsman_server.rpc.descriptors import with_imports
from tests.support.certificates import Authority, Pair
from tests.support.tools import require, tool
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
SERVICE = "pointsman.v1.RouteService"
HEALTH = "grpc.health.v1.Health"
TRANSPORTS = ("grpcio", "envoy")
PATIENCE_SECONDS = 60
# What grpcurl exits with: 64 and the code of the status.
NOT_FOUND, INVALID_ARGUMENT, DEADLINE_EXCEEDED, RESOURCE_EXHAUSTED, UNIMPLEMENTED = 69, 67, 68, 72, 76
NOT_CALLED = 1
# What the health probe exits with.
SERVING, NO_CONNECTION, NO_ANSWER, NOT_SERVING = 0, 2, 3, 4
CALLS = 2_000

pytestmark = pytest.mark.go


def run(name: str, *arguments: str, given: str = "") -> subprocess.CompletedProcess[str]:
    """Run a client to its end. ``given``: its stdin."""
    program = require(name, tool(name), "go install builds it: make tools")
    return subprocess.run(
        [program, *arguments],
        input=given,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


def write_pem(directory: Path, authority: Authority | None, pair: Pair | None = None) -> dict[str, str]:
    """Write what a client trusts and shows; give the paths: ``ca``, and ``cert`` and ``key`` with a ``pair``."""
    parts = {"ca": authority.pem} if authority else {}
    parts |= {"cert": pair.cert, "key": pair.key} if pair else {}
    paths = {name: directory / f"client-{name}.pem" for name in parts}
    for name, path in paths.items():
        path.write_bytes(parts[name])
    return {name: str(path) for name, path in paths.items()}


@dataclass(frozen=True)
class Clients:
    """The clients of one server."""

    target: str
    pem: Mapping[str, str]

    def grpcurl(self, method: str, request: object = "", *options: str) -> subprocess.CompletedProcess[str]:
        """Call a method, or give a command such as ``list``. ``request``: its text, or what becomes its JSON."""
        data = request if isinstance(request, str) else json.dumps(request)
        asked = ("-d", "@", self.target, *method.split())
        return run("grpcurl", *self._tls("-cacert", "-cert", "-key"), *options, *asked, given=data)

    def probe(self, service: str = "", *options: str) -> int:
        """Ask for the health of a service; give the exit code."""
        tls = self._tls("-tls-ca-cert", "-tls-client-cert", "-tls-client-key", plaintext=())
        tls = ("-tls", *tls) if tls else ()
        return run("grpc-health-probe", f"-addr={self.target}", f"-service={service}", *tls, *options).returncode

    def ghz(self, method: str, request: object, *options: str, calls: int = CALLS) -> Any:
        """Call a method ``calls`` times; give the report."""
        tls = self._tls("--cacert", "--cert", "--key", plaintext=("--insecure",))
        load = ("--total", str(calls), "--concurrency", "20", "--connections", "4", "--format", "json")
        asked = ("--call", method, "--data", json.dumps(request))
        done = run("ghz", *tls, *load, *asked, *options, self.target)
        assert done.returncode == 0, done.stderr
        return json.loads(done.stdout)

    def _tls(self, *names: str, plaintext: tuple[str, ...] = ("-plaintext",)) -> tuple[str, ...]:
        if not self.pem:
            return plaintext
        found = zip(names, ("ca", "cert", "key"), strict=True)
        return tuple(word for option, name in found if name in self.pem for word in (option, self.pem[name]))


@pytest.fixture
def clients(door, tmp_path) -> Clients:
    return Clients(door.target, write_pem(tmp_path, door.authority))


def status_of(done: subprocess.CompletedProcess[str]) -> tuple[int, Any]:
    """Read the status that ``grpcurl -format-error`` prints: its code, and the details by their types."""
    status = json.loads(done.stderr)
    details = {detail["@type"].rpartition(".")[2]: detail for detail in status.get("details", ())}
    return status["code"], details


def test_grpcurl_finds_the_methods_by_reflection(clients, key):
    assert SERVICE in clients.grpcurl("list").stdout.split()
    assert f"{SERVICE}.Resolve" in clients.grpcurl(f"list {SERVICE}").stdout.split()
    assert "RouteKey key = 1" in clients.grpcurl("describe pointsman.v1.ResolveRequest").stdout
    created = clients.grpcurl(f"{SERVICE}/Create", {"key": key, "url": URL})
    assert json.loads(created.stdout)["route"]["url"] == URL


def test_grpcurl_prints_the_details_of_an_error(clients, key):
    done = clients.grpcurl(f"{SERVICE}/Resolve", {"key": key})

    assert done.returncode == NOT_FOUND
    head, details = done.stderr.split("Details:")
    assert "Code: NotFound" in head
    assert key["tenant"] in head
    # It unpacks them by the descriptors that reflection gave.
    assert '"@type":"type.googleapis.com/google.rpc.ErrorInfo"' in details.replace(": ", ":")
    assert "ROUTE_NOT_FOUND" in details


def test_grpcurl_prints_which_fields_are_bad(clients, key):
    bad = key | {"tenant": "a b", "env": "ä"}
    done = clients.grpcurl(f"{SERVICE}/Create", {"key": bad, "url": URL}, "-format-error")

    code, details = status_of(done)
    assert (done.returncode, code) == (INVALID_ARGUMENT, 3)
    assert {each["field"] for each in details["BadRequest"]["field_violations"]} == {"key.tenant", "key.env"}
    assert details["ErrorInfo"]["domain"] == "pointsman.v1"


@pytest.fixture(scope="session")
def another_version(tmp_path_factory) -> str:
    """The path of descriptors with a method and a service that no server has."""
    files = FileDescriptorSet(file=with_imports([route_service_pb2.DESCRIPTOR]))
    (file,) = [each for each in files.file if each.name == "pointsman/v1/route_service.proto"]
    added = file.service[0].method.add()
    added.CopyFrom(file.service[0].method[0])
    added.name = "Teleport"
    file.service.add().CopyFrom(file.service[0])
    file.service[1].name = "NoService"
    path = tmp_path_factory.mktemp("protoset") / "another.binpb"
    path.write_bytes(files.SerializeToString())
    return str(path)


@pytest.mark.parametrize("method", [f"{SERVICE}/Teleport", "pointsman.v1.NoService/Resolve"])
def test_a_method_that_is_not_there_is_unimplemented(clients, another_version, method):
    done = clients.grpcurl(method, {}, "-protoset", another_version, "-format-error")

    code, _ = status_of(done)
    assert (done.returncode, code) == (UNIMPLEMENTED, 12)


def test_grpcurl_does_not_find_a_method_that_reflection_does_not_know(clients):
    done = clients.grpcurl(f"{SERVICE}/Teleport", {})

    assert done.returncode == NOT_CALLED
    assert "does not include a method named" in done.stderr


@pytest.mark.parametrize("request_text", ['{"key": {"tenant": 5}}', '{"no_field": 1}', "{"])
def test_grpcurl_does_not_send_what_is_no_request(clients, request_text):
    done = clients.grpcurl(f"{SERVICE}/Resolve", request_text)

    assert done.returncode == NOT_CALLED
    assert "Failed to" in done.stderr or "error getting request data" in done.stderr


def test_a_request_that_is_too_large_is_refused(clients, key):
    done = clients.grpcurl(f"{SERVICE}/Create", {"key": key, "url": URL, "reason": "x" * 5_000_000})

    assert done.returncode == RESOURCE_EXHAUSTED, done.stderr


def test_a_deadline_ends_the_call_on_both_sides(clients, door):
    with door.listing_blocked():
        done = clients.grpcurl(f"{SERVICE}/List", {}, "-max-time", "1")

        assert done.returncode == DEADLINE_EXCEEDED, done.stderr
        assert eventually(lambda: not door.waiting())


def test_grpcurl_reads_a_stream_until_its_deadline(clients):
    done = clients.grpcurl(f"{HEALTH}/Watch", {"service": "readiness"}, "-max-time", "1")

    assert json.loads(done.stdout) == {"status": "SERVING"}
    assert done.returncode == DEADLINE_EXCEEDED


def test_grpcurl_prints_binary_trailers(clients, key):
    done = clients.grpcurl(f"{SERVICE}/Resolve", {"key": key}, "-v", "-H", "x-trace-bin: AAH/")

    assert done.returncode == NOT_FOUND
    # Decoded from base64, and encoded once more.
    assert "grpc-status-details-bin:" in done.stdout.lower()


@pytest.mark.parametrize("service", ["", SERVICE, "readiness", "liveness"])
def test_the_probe_finds_a_service_that_serves(clients, service):
    assert clients.probe(service) == SERVING
    assert clients.probe(service, "-gzip") == SERVING


def test_the_probe_fails_for_an_unknown_service(clients):
    assert clients.probe("teleport") == NO_ANSWER


def test_clients_that_do_not_trust_the_server_do_not_call_it(door, tmp_path):
    # By TLS to a port that speaks none, or with another authority.
    other = Clients(door.target, write_pem(tmp_path, Authority()))
    short = Clients(door.target, {}) if door.authority else other

    for clients in (other, short):
        assert clients.probe("", "-connect-timeout=1s") == NO_CONNECTION
        assert clients.grpcurl("list", "", "-connect-timeout", "1").returncode == NOT_CALLED


def test_ghz_has_no_failure_in_many_calls(clients, key):
    created = clients.grpcurl(f"{SERVICE}/Create", {"key": key, "url": URL})
    assert created.returncode == 0, created.stderr

    report = clients.ghz(f"{SERVICE}.Resolve", {"key": key})

    assert report["count"] == CALLS
    assert report["statusCodeDistribution"] == {"OK": CALLS}
    assert report["errorDistribution"] == {}


def test_ghz_counts_failures_by_their_code(clients, key):
    report = clients.ghz(f"{SERVICE}.Resolve", {"key": key})

    assert report["count"] == CALLS
    assert report["statusCodeDistribution"] == {"NotFound": CALLS}
    ((text, count),) = report["errorDistribution"].items()
    assert count == CALLS
    assert key["tenant"] in text


def test_ghz_compresses_its_requests(clients, key):
    report = clients.ghz(f"{SERVICE}.Resolve", {"key": key}, "--enable-compression", calls=100)

    assert report["statusCodeDistribution"] == {"NotFound": 100}


@pytest.fixture(params=TRANSPORTS)
def mutual(request, doors, authority) -> Any:
    return doors.open(request.param, authority, mutual=True)


def test_each_client_shows_its_certificate(mutual, authority, client_pair, key, tmp_path):
    clients = Clients(mutual.target, write_pem(tmp_path, authority, client_pair))

    created = clients.grpcurl(f"{SERVICE}/Create", {"key": key, "url": URL})
    assert created.returncode == 0, created.stderr
    changes = json.loads(clients.grpcurl(f"{SERVICE}/ListChanges", {"tenant": key["tenant"]}).stdout)["changes"]
    assert [change["actor"] for change in changes] == ["dns:checkout.internal"]
    assert clients.probe("readiness") == SERVING
    assert clients.ghz(f"{SERVICE}.Resolve", {"key": key}, calls=100)["statusCodeDistribution"] == {"OK": 100}


def test_a_client_without_a_certificate_is_not_let_in(mutual, authority, tmp_path):
    clients = Clients(mutual.target, write_pem(tmp_path, authority))

    assert clients.grpcurl("list", "", "-connect-timeout", "1").returncode == NOT_CALLED
    assert clients.probe("", "-connect-timeout=1s") == NO_CONNECTION


@pytest.mark.parametrize("transport", TRANSPORTS)
def test_the_probe_says_that_a_server_drains(doors, transport, authority, tmp_path):
    door = doors.open(transport, authority, POINTSMAN_LAME_DUCK_SECONDS="600")
    clients = Clients(door.target, write_pem(tmp_path, authority))
    assert clients.probe("readiness") == SERVING
    door.process.process.send_signal(signal.SIGTERM)

    assert eventually(lambda: clients.probe("readiness") == NOT_SERVING)
    assert clients.probe("liveness") == SERVING
    door.process.process.kill()
    door.process.process.wait(PATIENCE_SECONDS)
    assert clients.probe("readiness", "-connect-timeout=1s") == NO_CONNECTION
