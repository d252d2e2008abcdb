"""The Helm chart, and the plain manifests that are rendered from it: valid, secure, and what the server accepts."""

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from functools import cache
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr

from pointsman_server.config.environment import load
from pointsman_server.config.names import variable
from pointsman_server.config.rules import insecure, require, require_secure
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import DEFAULT_ROLES, ServerRole, host_and_port
from tests.support import debian, helm
from tests.support.helm import CHART, MANIFESTS, MONITORING, XDS, HelmError, template
from tests.support.kubernetes import ROOT, Objects, image_environment, selects, validate
from tests.support.tools import BIN, tool
from tests.support.tools import require as require_tool

pytestmark = pytest.mark.go

VALUES: Mapping[str, tuple[str, ...]] = {
    "defaults": (),
    **{
        path.stem: ("--values", str(path))
        for path in [*sorted(CHART.glob("values-*.yaml")), *sorted((CHART / "ci").glob("*.yaml"))]
    },
    "everything on": tuple(
        f"--set={name}.enabled=true" for name in ("serviceMonitor", "prometheusRule", "dashboards", "api.autoscaling")
    ),
}
# The components whose pods are servers.
SERVERS = frozenset({"api", "background", "xds"})
SECURE = [
    "defaults",
    "values-production",
    "client-certificates-values",
    "xds-values",
    "everything on",
    "kubectl apply -k",
]
VERSION = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)[0]


@pytest.fixture(autouse=True, scope="module")
def _tools() -> None:
    for name in ("helm", "kustomize"):
        require_tool(name, tool(name), "run `make tools`")


@cache
def rendered(name: str) -> Objects:
    if name == "kubectl apply -k":
        return Objects(kustomize(MANIFESTS) + "---\n" + kustomize(MONITORING))
    return Objects(template(*VALUES[name]))


def kustomize(directory: Path) -> str:
    return output(str(BIN / "kustomize"), "build", str(directory))


def output(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def settings_of(objects: Objects, component: str) -> Settings:
    return load(image_environment() | objects.environment(component))


def with_values(*pairs: str) -> Objects:
    return Objects(template(*(f"--set={pair}" for pair in pairs)))


every_rendering = pytest.mark.parametrize("name", [*VALUES, "kubectl apply -k"])


@every_rendering
class TestEveryRendering:
    def test_objects_are_as_kubernetes_and_the_operator_have_them(self, name: str) -> None:
        for item in rendered(name).all:
            validate(item)

    def test_names_are_unique(self, name: str) -> None:
        names = [(item["kind"], item["metadata"]["name"]) for item in rendered(name).all]
        assert len(set(names)) == len(names)

    def test_the_server_accepts_the_environment_of_its_pods(self, name: str) -> None:
        objects = rendered(name)
        for component, _ in objects.pods():
            settings = settings_of(objects, component)
            require(settings, () if component == "migrate" else None)
            if component in SERVERS:
                require_secure(settings)

    def test_all_roles_are_there(self, name: str) -> None:
        objects = rendered(name)
        components = {component for component, _ in objects.pods()} & SERVERS
        roles = [role for component in components for role in settings_of(objects, component).roles]
        # Its Service is there where, and only where, pods serve xDS.
        xds = any(item["metadata"]["name"].endswith("-xds") for item in objects.of("Service"))
        assert sorted(roles) == sorted(ServerRole if xds else DEFAULT_ROLES)

    def test_ports_are_those_that_the_server_listens_on(self, name: str) -> None:
        objects = rendered(name)
        for component in {component for component, _ in objects.pods()} & SERVERS:
            settings = settings_of(objects, component)
            addresses = {"http": settings.http_listen}
            addresses |= {"grpc": settings.listen} if ServerRole.API in settings.roles else {}
            addresses |= {"xds": settings.xds_listen} if ServerRole.XDS in settings.roles else {}
            (container,) = objects.pod(component)["containers"]
            opened = {port["name"]: port["containerPort"] for port in container["ports"]}
            assert opened == {name: host_and_port(address)[1] for name, address in addresses.items()}
            for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
                asked = container[probe]
                assert asked.get("grpc", {}).get("port", opened["http"]) in opened.values()
                assert asked.get("httpGet", {}).get("port", "http") == "http"

    def test_the_grace_period_is_longer_than_a_stop_takes(self, name: str) -> None:
        objects = rendered(name)
        for component in {component for component, _ in objects.pods()} & SERVERS:
            settings = settings_of(objects, component)
            least = settings.lame_duck_seconds + settings.drain_seconds + 10
            assert objects.pod(component)["terminationGracePeriodSeconds"] >= least

    def test_pods_meet_the_restricted_standard_and_know_nothing_of_the_cluster(self, name: str) -> None:
        for _, pod in rendered(name).pods():
            spec = pod["spec"]
            assert spec["automountServiceAccountToken"] is False
            assert spec["enableServiceLinks"] is False
            assert spec["securityContext"]["runAsNonRoot"] is True
            assert spec["securityContext"]["runAsUser"] > 0
            assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
            for container in spec["containers"]:
                assert container["securityContext"] == {
                    "allowPrivilegeEscalation": False,
                    "readOnlyRootFilesystem": True,
                    "capabilities": {"drop": ["ALL"]},
                }
                assert "memory" in container["resources"]["limits"]
                assert "cpu" not in container["resources"]["limits"]
                mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
                assert mounts.keys() == {volume["name"] for volume in spec["volumes"]}
                assert mounts["tmp"]["mountPath"] == "/tmp"  # noqa: S108 - a mount
            (tmp,) = [volume for volume in spec["volumes"] if volume["name"] == "tmp"]
            assert "emptyDir" in tmp

    def test_selectors_find_the_pods_that_they_are_for(self, name: str) -> None:
        objects = rendered(name)
        labels = {component: pod["metadata"]["labels"] for component, pod in objects.pods()}
        servers = labels.keys() & SERVERS

        def chosen(selector: Mapping[str, str]) -> set[str]:
            return {component for component in servers if selects(selector, labels[component])}

        for item in [*objects.of("Deployment"), *objects.of("PodDisruptionBudget")]:
            component = item["metadata"]["labels"]["app.kubernetes.io/component"]
            assert chosen(item["spec"]["selector"]["matchLabels"]) == {component}
        xds = {component for component in servers if ServerRole.XDS in settings_of(objects, component).roles}
        for item in objects.of("Service"):
            metrics, own = (item["metadata"]["name"].endswith(end) for end in ("-metrics", "-xds"))
            assert chosen(item["spec"]["selector"]) == (servers if metrics else xds if own else {"api"})
        for item in objects.of("NetworkPolicy"):
            component = item["metadata"]["labels"].get("app.kubernetes.io/component")
            assert chosen(item["spec"]["podSelector"]["matchLabels"]) == ({component} if component else servers)
        for item in objects.of("ServiceMonitor"):
            found = [
                each
                for each in objects.of("Service")
                if selects(item["spec"]["selector"]["matchLabels"], each["metadata"]["labels"])
            ]
            assert [each["metadata"]["name"] for each in found] == [f"{item['metadata']['name']}-metrics"]
        for item in objects.of("HorizontalPodAutoscaler"):
            target = objects.one("Deployment", item["spec"]["scaleTargetRef"]["name"])
            assert "replicas" not in target["spec"]

    def test_clients_that_balance_by_themselves_find_every_pod(self, name: str) -> None:
        assert rendered(name).one("Service", "-headless")["spec"]["clusterIP"] == "None"

    def test_secrets_come_from_secrets_that_exist(self, name: str) -> None:
        objects = rendered(name)
        assert not objects.of("Secret")
        for _, pod in objects.pods():
            for container in pod["spec"]["containers"]:
                secret = [item for item in container["env"] if item["name"] in secret_variables()]
                assert secret
                assert all("secretKeyRef" in item["valueFrom"] for item in secret)

    def test_pods_run_the_image_of_this_version(self, name: str) -> None:
        for _, pod in rendered(name).pods():
            for container in pod["spec"]["containers"]:
                assert re.search(
                    rf"pointsman-server(:{re.escape(VERSION)}|@sha256:[0-9a-f]{{64}})$", container["image"]
                )

    def test_memory_that_the_server_bounds_is_within_the_limit_of_its_pod(self, name: str) -> None:
        objects = rendered(name)
        settings = settings_of(objects, "api")
        limit = objects.pod("api")["containers"][0]["resources"]["limits"]["memory"]
        megabytes = int(limit[:-2]) * {"Mi": 1, "Gi": 1024}[limit[-2:]]
        assert settings.max_heap_megabytes * settings.workers <= 0.75 * megabytes


def secret_variables() -> set[str]:
    return {variable(name) for name, field in Settings.model_fields.items() if field.annotation is SecretStr}


class TestSecureByDefault:
    @pytest.mark.parametrize("name", SECURE)
    def test_tls_and_authentication_are_on_and_nothing_else_is_allowed(self, name: str) -> None:
        settings = settings_of(rendered(name), "api")
        assert insecure(settings) == {"anonymous": False, "plaintext": False}
        assert (settings.allow_anonymous, settings.allow_plaintext) == (False, False)

    @pytest.mark.parametrize("name", SECURE)
    def test_the_certificate_lies_where_its_secret_is_mounted(self, name: str) -> None:
        objects = rendered(name)
        settings = settings_of(objects, "api")
        spec = objects.pod("api")
        (mount,) = [mount for mount in spec["containers"][0]["volumeMounts"] if mount["name"] == "tls"]
        names = [settings.tls_cert_file, settings.tls_key_file]
        assert [str(name) for name in names] == [f"{mount['mountPath']}/tls.crt", f"{mount['mountPath']}/tls.key"]

    @pytest.mark.parametrize("name", SECURE)
    def test_metrics_are_for_the_monitoring_alone(self, name: str) -> None:
        (rule,) = rendered(name).one("NetworkPolicy", "pointsman")["spec"]["ingress"]
        assert rule["ports"] == [{"port": "http", "protocol": "TCP"}]
        assert rule["from"]

    def test_pods_that_answer_no_calls_listen_for_metrics_alone(self) -> None:
        (container,) = rendered("defaults").pod("background")["containers"]
        assert [port["name"] for port in container["ports"]] == ["http"]
        assert ServerRole.API not in settings_of(rendered("defaults"), "background").roles


class TestXds:
    def test_it_is_off_unless_asked_for(self) -> None:
        objects = rendered("defaults")
        assert not [item for item in objects.all if item["metadata"]["name"].endswith("-xds")]
        assert all(ServerRole.XDS not in settings_of(objects, name).roles for name in ("api", "background"))

    def test_it_has_pods_of_its_own_which_answer_nothing_else(self) -> None:
        objects = rendered("xds-values")
        assert settings_of(objects, "xds").roles == {ServerRole.XDS}
        assert settings_of(objects, "api").roles == {ServerRole.API}
        assert objects.one("PodDisruptionBudget", "-xds")

    def test_the_pods_of_the_api_may_serve_it_too(self) -> None:
        for background, roles in (("true", {ServerRole.API, ServerRole.XDS}), ("false", set(ServerRole))):
            objects = with_values("xds.enabled=true", "xds.separate=false", f"background.enabled={background}")
            assert settings_of(objects, "api").roles == roles
            assert "pointsman-xds" not in [item["metadata"]["name"] for item in objects.of("Deployment")]
            assert selects(
                objects.one("Service", "-xds")["spec"]["selector"],
                objects.one("Deployment", "-api")["spec"]["template"]["metadata"]["labels"],
            )

    def test_its_service_has_one_address_that_leads_to_pods_that_are_ready(self) -> None:
        spec = rendered("xds-values").one("Service", "-xds")["spec"]
        assert "clusterIP" not in spec
        assert "publishNotReadyAddresses" not in spec

    def test_its_clients_alone_reach_it_where_they_are_named(self) -> None:
        objects = rendered("xds-values")
        (rule,) = objects.one("NetworkPolicy", "-xds")["spec"]["ingress"]
        assert rule["ports"] == [{"port": "xds", "protocol": "TCP"}]
        assert rule["from"] == [{"namespaceSelector": {"matchLabels": {"example.com/routes-by-pointsman": "true"}}}]
        (rule,) = with_values("xds.enabled=true").one("NetworkPolicy", "-xds")["spec"]["ingress"]
        assert "from" not in rule

    def test_it_has_the_certificate_the_authority_and_the_policy_of_the_api(self) -> None:
        objects = rendered("xds-values")
        own, api = (settings_of(objects, component) for component in ("xds", "api"))
        for name in ("tls_cert_file", "tls_key_file", "tls_client_ca_file", "policy_file"):
            assert getattr(own, name) == getattr(api, name) is not None

    def test_probes_of_grpc_ask_its_port(self) -> None:
        objects = Objects(template(*VALUES["mesh-values"], "--set=xds.enabled=true"))
        (container,) = objects.pod("xds")["containers"]
        assert container["readinessProbe"]["grpc"] == {"port": 50052, "service": "readiness"}
        assert container["livenessProbe"]["grpc"] == {"port": 50052, "service": "liveness"}

    def test_the_image_names_its_port(self) -> None:
        exposed = re.findall(r"(?m)^EXPOSE (.+)$", (ROOT / "Dockerfile").read_text())
        assert exposed == ["50051 50052 9464"]

    def test_it_is_a_component_of_the_plain_manifests(self, tmp_path: Path) -> None:
        overlay = tmp_path / "kubernetes"
        shutil.copytree(MANIFESTS, overlay)
        text = (overlay / "kustomization.yaml").read_text()
        assert "\n# components: [xds]\n" in text
        (overlay / "kustomization.yaml").write_text(text.replace("\n# components: [xds]\n", "\ncomponents: [xds]\n"))
        objects = Objects(kustomize(overlay))
        for item in objects.all:
            validate(item)
        assert objects.environment("xds")["POINTSMAN_LOG_LEVEL"] == "info"
        assert settings_of(objects, "xds").roles == {ServerRole.XDS}


class TestProbes:
    def test_with_tls_they_ask_the_port_that_has_none(self) -> None:
        (container,) = rendered("defaults").pod("api")["containers"]
        assert container["livenessProbe"]["httpGet"] == {"port": "http", "path": "/health/live"}
        assert container["readinessProbe"]["httpGet"] == {"port": "http", "path": "/health/ready"}

    def test_without_tls_they_are_those_of_grpc(self) -> None:
        objects = rendered("mesh-values")
        (container,) = objects.pod("api")["containers"]
        assert container["livenessProbe"]["grpc"] == {"port": 50051, "service": "liveness"}
        assert container["readinessProbe"]["grpc"] == {"port": 50051, "service": "readiness"}
        assert container["startupProbe"]["grpc"]["service"] == "liveness"
        (background,) = objects.pod("background")["containers"]
        assert "httpGet" in background["livenessProbe"]

    def test_http_may_be_chosen_without_tls_too(self) -> None:
        objects = Objects(template(*VALUES["mesh-values"], "--set=api.probes=http"))
        assert "httpGet" in objects.pod("api")["containers"][0]["readinessProbe"]


class TestValuesReachTheServer:
    def test_a_setting_of_one_component_wins_also_where_it_is_zero_or_false(self) -> None:
        objects = rendered("mesh-values")
        assert settings_of(objects, "api").lame_duck_seconds == 0
        assert settings_of(objects, "background").lame_duck_seconds == 5
        assert settings_of(objects, "api").rate_shared_writes is True
        assert settings_of(objects, "background").rate_shared_writes is False

    def test_a_large_number_is_written_out(self) -> None:
        assert rendered("mesh-values").environment("api")["POINTSMAN_WATCH_HISTORY_CHANGES"] == "5000000"

    def test_a_fraction_stays_one(self) -> None:
        assert settings_of(rendered("mesh-values"), "api").rate_tenant_writes == 0.5

    def test_a_default_is_taken_away_by_null(self) -> None:
        assert "POINTSMAN_API_KEYS" not in rendered("values-production").environment("api")

    def test_one_component_may_have_its_own_secret(self) -> None:
        objects = rendered("mesh-values")
        names = {
            component: item["valueFrom"]["secretKeyRef"]["name"]
            for component in ("api", "background")
            for item in objects.pod(component)["containers"][0]["env"]
            if item["name"] == "DATABASE_URL"
        }
        assert names == {"api": "pointsman-pooler", "background": "pointsman"}

    def test_the_policy_is_a_file_that_the_server_reads(self) -> None:
        objects = rendered("values-production")
        policy = objects.one("ConfigMap", "-policy")
        assert policy["data"]["policy.toml"].startswith("[[grant]]\n")
        assert {"name": "policy", "configMap": {"name": policy["metadata"]["name"]}} in objects.pod("api")["volumes"]
        assert str(settings_of(objects, "api").policy_file) == "/etc/pointsman/policy/policy.toml"

    def test_the_authority_of_clients_is_mounted_without_its_key(self) -> None:
        objects = rendered("client-certificates-values")
        (volume,) = [each for each in objects.pod("api")["volumes"] if each["name"] == "client-ca"]
        assert volume["secret"]["items"] == [{"key": "ca.crt", "path": "ca.crt"}]
        assert str(settings_of(objects, "api").tls_client_ca_file) == "/etc/pointsman/client-ca/ca.crt"

    def test_the_authority_of_clients_may_lie_beside_the_certificate(self) -> None:
        objects = with_values("tls.clientCa.enabled=true")
        assert str(settings_of(objects, "api").tls_client_ca_file) == "/etc/pointsman/tls/ca.crt"

    def test_files_of_secrets_are_mounted_into_every_pod(self) -> None:
        for _, pod in rendered("client-certificates-values").pods():
            (mount,) = [each for each in pod["spec"]["containers"][0]["volumeMounts"] if each["name"] == "file-kafka"]
            assert mount == {"name": "file-kafka", "mountPath": "/etc/pointsman/files/kafka", "readOnly": True}

    def test_one_pod_does_everything_where_there_are_no_others(self) -> None:
        objects = rendered("values-trial")
        assert [item["metadata"]["name"] for item in objects.of("Deployment")] == ["pointsman-api"]
        assert settings_of(objects, "api").roles == DEFAULT_ROLES

    def test_where_connections_may_go_is_restricted_and_names_can_be_looked_up(self) -> None:
        policy = rendered("values-production").one("NetworkPolicy", "pointsman")["spec"]
        assert policy["policyTypes"] == ["Ingress", "Egress"]
        assert policy["egress"][0]["ports"] == [{"port": 53, "protocol": "UDP"}, {"port": 53, "protocol": "TCP"}]
        assert len(policy["egress"]) == 3

    def test_names_begin_with_that_of_the_release(self) -> None:
        names = {item["metadata"]["name"] for item in Objects(template(release="blue")).all}
        assert all(name.startswith("blue-pointsman") for name in names)


class TestEngines:
    """PgBouncer, Redis Cluster with TLS, and Kafka with SASL and TLS, by the values of a file."""

    @pytest.mark.parametrize("component", ["api", "background"])
    def test_what_is_secret_comes_from_secrets_and_the_rest_from_settings(self, component: str) -> None:
        settings = settings_of(rendered("engines-values"), component)
        assert settings.kafka_security_protocol == "sasl_ssl"
        (container,) = rendered("engines-values").pod(component)["containers"]
        assert {item["name"] for item in container["env"] if "valueFrom" in item} == {
            "DATABASE_URL",
            "POINTSMAN_DATABASE_SESSION_URL",
            "POINTSMAN_AUDIT_DATABASE_URL",
            "REDIS_URL",
            "POINTSMAN_KAFKA_SASL_PASSWORD",
        }

    @pytest.mark.parametrize("component", ["api", "background"])
    def test_each_file_that_a_setting_names_is_in_a_mounted_secret(self, component: str) -> None:
        objects = rendered("engines-values")
        paths = [path for path in objects.environment(component).values() if path.startswith("/etc/pointsman/files/")]
        mounts = [mount["mountPath"] for mount in objects.pod(component)["containers"][0]["volumeMounts"]]
        assert len(paths) == 4
        assert all(str(Path(path).parent) in mounts for path in paths)

    def test_the_migration_uses_the_session_of_the_owner_and_knows_nothing_of_the_other_engines(self) -> None:
        (container,) = rendered("engines-values").pod("migrate")["containers"]
        keys = {
            item["name"]: item["valueFrom"]["secretKeyRef"]["key"] for item in container["env"] if "valueFrom" in item
        }
        assert keys == {
            "DATABASE_URL": "pooler",
            "POINTSMAN_DATABASE_SESSION_URL": "owner",
            "POINTSMAN_AUDIT_DATABASE_URL": "url",
        }
        assert [item["name"] for item in container["env"] if "value" in item] == ["POINTSMAN_LOG_FORMAT"]

    def test_the_values_that_the_page_shows_are_taken(self, tmp_path: Path) -> None:
        (shown,) = re.findall(r"```yaml\n(.*?)```", (ROOT / "docs" / "deploying.md").read_text(), re.DOTALL)
        values = tmp_path / "values.yaml"
        values.write_text(shown)
        assert settings_of(Objects(template("--values", str(values))), "api").kafka_sasl_mechanism == "SCRAM-SHA-512"


class TestMigration:
    def test_as_a_hook_it_comes_before_everything_and_needs_nothing_of_the_chart(self) -> None:
        objects = rendered("defaults")
        job = objects.one("Job")
        assert job["metadata"]["annotations"]["helm.sh/hook"] == "pre-install,pre-upgrade"
        assert job["metadata"]["name"] == "pointsman-migrate"
        spec = job["spec"]["template"]["spec"]
        made = {item["metadata"]["name"] for item in objects.all}
        used = [volume.get("configMap", {}).get("name") for volume in spec["volumes"]]
        assert spec["serviceAccountName"] == "default"
        assert not made & set(used)

    def test_as_an_ordinary_job_it_has_another_name_when_its_content_differs(self) -> None:
        names = {
            with_values("migrate.mode=job", tag).one("Job")["metadata"]["name"]
            for tag in ("image.tag=a", "image.tag=b", "image.tag=a")
        }
        assert len(names) == 2
        assert "annotations" not in with_values("migrate.mode=job").one("Job")["metadata"]

    def test_it_can_be_left_out(self) -> None:
        assert not with_values("migrate.mode=none").of("Job")

    def test_it_knows_the_databases_alone_and_may_have_a_role_of_its_own(self) -> None:
        (container,) = rendered("values-production").pod("migrate")["containers"]
        assert [item["name"] for item in container["env"]] == ["POINTSMAN_LOG_FORMAT", "DATABASE_URL"]
        assert container["env"][1]["valueFrom"]["secretKeyRef"]["name"] == "pointsman-database-owner"


REFUSED = {
    "settings.POINTSMAN_DRIAN_SECONDS=3": "additional properties 'POINTSMAN_DRIAN_SECONDS' not allowed",
    "settings.POINTSMAN_DRAIN_SECONDS=601": "maximum: got 601, want 600",
    "settings.POINTSMAN_DATABASE_TIMEOUT_SECONDS=0": "exclusiveMinimum: got 0, want 0",
    "settings.POINTSMAN_WORKERS=many": "got string, want integer",
    "settings.POINTSMAN_TRANSPORT=native": "value must be one of 'auto', 'grpcio', 'envoy'",
    "settings.POINTSMAN_API_KEYS=perhaps": "value must be one of",
    "settings.POINTSMAN_KAFKA_TOPIC=a b": "does not match pattern",
    "settings.POINTSMAN_JWT_JWKS_FILE=keys.json": "does not match pattern",
    # What the chart sets itself, and secrets.
    "settings.POINTSMAN_LISTEN=:1": "additional properties 'POINTSMAN_LISTEN' not allowed",
    "settings.DATABASE_URL=postgresql://user:secret@host/db": "additional properties 'DATABASE_URL' not allowed",
    "api.settings.REDIS_URL=redis://:secret@host/0": "additional properties 'REDIS_URL' not allowed",
    "settings.POINTSMAN_KAFKA_SASL_PASSWORD=secret": "'POINTSMAN_KAFKA_SASL_PASSWORD' not allowed",
    "settings.POINTSMAN_KAFKA_SECURITY_PROTOCOL=tls": "value must be one of 'plaintext', 'ssl'",
    "settings.POINTSMAN_KAFKA_CA_FILE=ca.crt": "does not match pattern",
    "settingsFromSecrets.POINTSMAN_NONE.name=a": "invalid propertyName 'POINTSMAN_NONE'",
    "settingsFromSecrets.POINTSMAN_LOG_LEVEL.name=a": "missing property 'key'",
    # What the server would refuse at its start, or the kubelet could not do.
    "tls.enabled=false": "TLS is off",
    "settings.POINTSMAN_API_KEYS=null": "authentication is off",
    "settings.POINTSMAN_API_KEYS=false": "authentication is off",
    "settingsFromSecrets.DATABASE_URL=null": "DATABASE_URL is not set",
    "settings.KAFKA_BOOTSTRAP_SERVERS=kafka:9092": "KAFKA_BOOTSTRAP_SERVERS is in settings and in settingsFromSecrets",
    "api.probes=grpc": "the kubelet's gRPC probes know no TLS",
    "tls.enabled=false,settings.POINTSMAN_ALLOW_PLAINTEXT=true,tls.clientCa.enabled=true": "needs tls.enabled",
    "policy=a,existingPolicyConfigMap=b": "exclude each other",
    "settings.POINTSMAN_API_KEYS=false,settings.POINTSMAN_ALLOW_ANONYMOUS=true,policy=a": "has no effect",
    "api.autoscaling.enabled=true,api.autoscaling.minReplicas=13": "is above maxReplicas",
    # Values of the chart.
    "api.replica=3": "additional properties 'replica' not allowed",
    "api.replicas=-1": "minimum: got -1, want 0",
    "api.probes=tcp": "value must be one of",
    "api.podDisruptionBudget.maxUnavailable=0": "at '/api/podDisruptionBudget/maxUnavailable'",
    "api.resources.limits.memory=much": "at '/api/resources/limits/memory'",
    "migrate.mode=always": "value must be one of",
    "image.digest=sha256:1": "does not match pattern",
    "listenHost=10.0.0.1": "value must be one of",
    "service.port=70000": "maximum: got 70,000, want 65,535",
    "secretFiles[0].name=../etc,secretFiles[0].secret=a": "does not match pattern",
    "runbookUrl=runbook.md": "does not match pattern",
    "serviceMonitor.interval=often": "does not match pattern",
    "password=secret": "additional properties 'password' not allowed",
}


@pytest.mark.parametrize("values", REFUSED)
def test_wrong_values_are_refused(values: str) -> None:
    with pytest.raises(HelmError) as caught:
        with_values(values)
    assert REFUSED[values] in str(caught.value)


class TestChart:
    @pytest.mark.parametrize("name", VALUES)
    def test_helm_finds_no_fault(self, name: str) -> None:
        said = helm.helm("lint", str(CHART), "--strict", "--kube-version", helm.KUBERNETES, *VALUES[name])
        assert "0 chart(s) failed" in said

    def test_its_version_is_that_of_the_server(self) -> None:
        chart = yaml.safe_load((CHART / "Chart.yaml").read_text())
        assert (chart["version"], chart["appVersion"]) == (VERSION, VERSION)

    def test_the_user_of_pods_is_that_of_the_image(self) -> None:
        (user,) = re.findall(r"(?m)^USER (\d+):(\d+)$", (ROOT / "Dockerfile").read_text())
        context = rendered("defaults").pod("api")["securityContext"]
        assert (str(context["runAsUser"]), str(context["runAsGroup"])) == user

    def test_it_is_packed_with_dashboards_and_rules_and_without_values_of_tests(self, tmp_path: Path) -> None:
        helm.helm("package", str(CHART), "--destination", str(tmp_path))
        (archive,) = tmp_path.iterdir()
        listed = output("tar", "-tzf", str(archive)).split()
        ours = {str(path.relative_to(CHART.parent)) for path in CHART.rglob("*") if path.is_file()}
        assert ours - set(listed) == {path for path in ours if "/ci/" in path}


class TestMonitoring:
    def test_the_rules_are_those_of_the_files_and_prometheus_takes_them(self, tmp_path: Path) -> None:
        files = sorted((CHART / "alerts").glob("*.yaml"))
        groups = [group for path in files for group in yaml.safe_load(path.read_text())["groups"]]
        rules = rendered("everything on").of("PrometheusRule")
        assert [group for item in rules for group in item["spec"]["groups"]] == groups
        promtool = require_tool("promtool", debian.find("promtool"), "run `make tools`")
        for item in rules:
            path = tmp_path / "rules.yaml"
            path.write_text(yaml.safe_dump(item["spec"]))
            output(str(promtool), "check", "rules", str(path))

    def test_alerts_name_the_place_where_the_runbook_is(self) -> None:
        url = "https://wiki.example.com/pointsman"
        objects = with_values("prometheusRule.enabled=true", f"runbookUrl={url}")
        groups = objects.one("PrometheusRule")["spec"]["groups"]
        named = [rule["annotations"]["runbook_url"] for group in groups for rule in group["rules"] if "alert" in rule]
        assert named
        assert all(each.startswith(f"{url}#") for each in named)

    def test_each_dashboard_is_a_config_map_that_the_sidecar_finds(self) -> None:
        files = {path.name: path.read_text() for path in (CHART / "dashboards").glob("*.json")}
        maps = [item for item in rendered("everything on").of("ConfigMap") if "-dashboard-" in item["metadata"]["name"]]
        held = {name: text for item in maps for name, text in item["data"].items()}
        assert files
        assert {name: json.loads(text) for name, text in held.items()} == {
            name: json.loads(text) for name, text in files.items()
        }
        assert all(item["metadata"]["labels"]["grafana_dashboard"] == "1" for item in maps)
        assert all(len(text) < 1_000_000 for text in held.values())

    def test_pods_are_scraped_once(self) -> None:
        annotations = {
            name: rendered(name).one("Deployment", "-api")["spec"]["template"]["metadata"].get("annotations", {})
            for name in ("defaults", "everything on")
        }
        assert "prometheus.io/scrape" in annotations["defaults"]
        assert annotations["everything on"] == {}


class TestPlainManifests:
    def test_they_are_what_the_chart_renders(self) -> None:
        assert helm.stale() == [], "run `make manifests`, and commit deploy/kubernetes"

    @pytest.mark.parametrize("directory", [MANIFESTS, MONITORING, XDS], ids=lambda path: path.name)
    def test_the_kustomization_holds_every_manifest(self, directory: Path) -> None:
        listed = yaml.safe_load((directory / "kustomization.yaml").read_text())["resources"]
        present = {path.name for path in directory.glob("*.yaml")} - {"kustomization.yaml", "values.yaml"}
        assert set(listed) == present

    def test_more_settings_come_from_the_map_of_the_kustomization(self) -> None:
        objects = rendered("kubectl apply -k")
        for component in ("api", "background", "migrate"):
            assert objects.environment(component)["POINTSMAN_LOG_LEVEL"] == "info"
