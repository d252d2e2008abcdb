"""What the pods of the chart run: the commands and variables of the containers as processes, probed as by a kubelet.

The engines are real but for Kafka, which is librdkafka's mock. Paths of mounted Secrets become directories of the test.
"""

import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1.health_pb2 import HealthCheckRequest, HealthCheckResponse
from grpc_health.v1.health_pb2_grpc import HealthStub

from pointsman import Client
from tests.support.certificates import Authority, TlsFiles
from tests.support.helm import CHART, template
from tests.support.kafka import mock_cluster
from tests.support.kubernetes import Objects, image_environment
from tests.support.processes import get_metric, run, serve
from tests.support.tools import require, tool
from tests.support.waiting import eventually
from tests.support.xds_streams import stream

pytestmark = pytest.mark.go

KEY = "team-a/payments/prod/v1"
URL = "https://payments.internal:8443"
PROBES = ("startupProbe", "livenessProbe", "readinessProbe")
# Nothing of a value but what a test needs to be quick, and to run beside others.
QUICK = ("--set=settings.POINTSMAN_LAME_DUCK_SECONDS=0", "--set=settings.POINTSMAN_REDIS_TIMEOUT_SECONDS=5")


@dataclass(frozen=True)
class Pods:
    """The pods of a rendered chart, with real engines where its Secrets would be."""

    objects: Objects
    secrets: dict[str, str]
    mounts: dict[str, str]

    def environment(self, component: str) -> dict[str, str]:
        variables = image_environment() | self.objects.environment(component)
        variables |= {name: value for name, value in self.secrets.items() if name in variables}
        for path, directory in self.mounts.items():
            variables = {name: value.replace(path, directory) for name, value in variables.items()}
        ports = {"POINTSMAN_LISTEN": "0.0.0.0:0", "POINTSMAN_HTTP_LISTEN": "127.0.0.1:0"}
        if "POINTSMAN_XDS_LISTEN" in variables:
            ports["POINTSMAN_XDS_LISTEN"] = "0.0.0.0:0"
        return variables | ports

    def container(self, component: str) -> Any:
        return self.objects.pod(component)["containers"][0]

    def command(self, component: str) -> list[str]:
        return ["pointsman-server", *self.container(component)["args"]]


@pytest.fixture
def secrets(database_url: str, redis_url: str) -> Iterator[dict[str, str]]:
    with mock_cluster() as brokers:
        yield {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "KAFKA_BOOTSTRAP_SERVERS": brokers}


@pytest.fixture(autouse=True)
def _helm() -> None:
    require("helm", tool("helm"), "run `make tools`")


def probe(asked: dict[str, Any], grpc_address: str, http_url: str) -> bool:
    """Ask as the kubelet does: gRPC without TLS, HTTP without TLS."""
    if "grpc" in asked:
        with grpc.insecure_channel(grpc_address) as channel:
            request = HealthCheckRequest(service=asked["grpc"]["service"])
            answer = HealthStub(channel).Check(request, timeout=asked["timeoutSeconds"])
            return bool(answer.status == HealthCheckResponse.SERVING)
    with urllib.request.urlopen(http_url + asked["httpGet"]["path"], timeout=asked["timeoutSeconds"]) as response:
        return int(response.status) == 200


def assert_probes_pass(container: Any, address: str, url: str) -> None:
    for name in PROBES:
        assert eventually(lambda name=name: passes(container[name], address, url), 30), name


def passes(asked: dict[str, Any], address: str, url: str) -> bool:
    try:
        return probe(asked, address, url)
    except (OSError, grpc.RpcError):
        return False


def test_by_default_pods_serve_with_tls_and_api_keys_and_publish_in_the_background(
    secrets: dict[str, str], tmp_path: Path
) -> None:
    authority, files = Authority(), TlsFiles(tmp_path)
    files.write(authority.server())
    (tmp_path / "ca.pem").write_bytes(authority.pem)
    pods = Pods(Objects(template(*QUICK)), secrets, {"/etc/pointsman/tls": str(tmp_path)})

    migrated = run(*pods.command("migrate"), **pods.environment("migrate"))
    assert migrated.returncode == 0, migrated.stderr
    checked = run(*pods.command("check"), **pods.environment("check"))
    assert checked.returncode == 0, checked.stdout + checked.stderr
    made = run("pointsman-server", "keys", "create", "admin", "--grant", "admin:*", **pods.environment("api"))
    assert made.returncode == 0, made.stderr

    with ExitStack() as stack:
        _, address, url = stack.enter_context(serve(**pods.environment("api")))
        _, _, background = stack.enter_context(serve(**pods.environment("background")))
        assert_probes_pass(pods.container("api"), address, url)
        assert_probes_pass(pods.container("background"), "", background)
        address = address.replace("127.0.0.1", "localhost")
        with Client(address, ca_file=tmp_path / "ca.pem", token=made.stdout.split()[0]) as client:
            client.create(KEY, URL)
            assert client.resolve(KEY).url == URL
        published = r'pointsman_kafka_events_published_total\{action="CREATED"\}'
        assert eventually(lambda: get_metric(background, published) == 1, 30)
        assert get_metric(url, published) is None


def test_behind_a_mesh_the_grpc_probes_of_the_kubelet_pass(secrets: dict[str, str]) -> None:
    values = ("--values", str(CHART / "ci" / "mesh-values.yaml"), "--set=api.settings.POINTSMAN_WORKERS=1")
    pods = Pods(Objects(template(*values, *QUICK)), secrets, {})

    assert all("grpc" in pods.container("api")[name] for name in PROBES)
    with serve(**pods.environment("api")) as (_, address, url):
        assert_probes_pass(pods.container("api"), address, url)


def test_pods_of_xds_are_ready_once_they_have_the_table_and_answer_streams(secrets: dict[str, str]) -> None:
    values = ("--values", str(CHART / "ci" / "mesh-values.yaml"), "--set=xds.enabled=true")
    pods = Pods(Objects(template(*values, *QUICK)), secrets, {})
    migrated = run(*pods.command("migrate"), **pods.environment("migrate"))
    assert migrated.returncode == 0, migrated.stderr
    made = run("pointsman-server", "keys", "create", "admin", "--grant", "admin:*", **pods.environment("background"))
    assert made.returncode == 0, made.stderr

    assert all("grpc" in pods.container("xds")[name] for name in PROBES)
    with serve(**pods.environment("xds")) as (process, _, url):
        address = f"127.0.0.1:{process.log('serving')[0]['xds_port']}"
        assert_probes_pass(pods.container("xds"), address, url)
        credentials = {"authorization": f"Bearer {made.stdout.split()[0]}"}
        with grpc.insecure_channel(address) as channel, stream(channel, metadata=credentials) as client:
            assert client.status("v1~prod~payments~team-a") == grpc.StatusCode.NOT_FOUND.value[0]


def test_a_trial_is_one_pod_that_answers_everybody_and_does_everything(secrets: dict[str, str]) -> None:
    pods = Pods(Objects(template("--values", str(CHART / "values-trial.yaml"), *QUICK)), secrets, {})

    with serve(**pods.environment("api")) as (process, address, url):
        assert_probes_pass(pods.container("api"), address, url)
        assert process.log("serving")[0]["roles"] == ["api", "audit", "cache", "relay"]
        with Client(address) as client:
            client.create(KEY, URL)
            assert client.resolve(KEY).url == URL
