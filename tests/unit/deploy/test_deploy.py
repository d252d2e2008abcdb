"""What we hand to operators: the image, the compose file and the manifests fit the server and each other."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pointsman_server.config.describe import effective
from pointsman_server.config.environment import load
from pointsman_server.config.rules import SettingsError, insecure, require, require_secure
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import host_and_port

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# Continued lines joined, comments left out: one instruction per line.
INSTRUCTIONS = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", DOCKERFILE)).splitlines()
COMPOSE = yaml.safe_load((ROOT / "deploy/compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("migrate", "pointsman")
MANIFEST_FILES = sorted((ROOT / "deploy/kubernetes").glob("*.yaml"))
SAMPLES = {
    "DATABASE_URL": "postgresql://pointsman:secret@db:5432/pointsman",
    "REDIS_URL": "redis://redis:6379/0",
    "KAFKA_BOOTSTRAP_SERVERS": "kafka:9092",
}


def manifests() -> list[Any]:
    paths = [path for path in MANIFEST_FILES if path.name != "kustomization.yaml"]
    return [document for path in paths for document in yaml.safe_load_all(path.read_text())]


def manifest(kind: str, name: str = "pointsman") -> Any:
    (found,) = [item for item in manifests() if item["kind"] == kind and item["metadata"]["name"] == name]
    return found


def pod(kind: str, name: str = "pointsman") -> Any:
    return manifest(kind, name)["spec"]["template"]["spec"]


def arguments(instruction: str) -> list[str]:
    return [line.partition(" ")[2] for line in INSTRUCTIONS if line.startswith(instruction + " ")]


def image_environment() -> dict[str, str]:
    pairs = [pair for line in arguments("ENV") for pair in line.split()]
    return {name: value for name, _, value in (pair.partition("=") for pair in pairs)}


def container_environment(container: Any) -> dict[str, str]:
    """What a pod sees; what a Secret holds is replaced by a sample, which must exist."""
    return config_maps(container) | {
        item["name"]: item["value"] if "value" in item else SAMPLES[item["name"]] for item in container["env"]
    }


def config_maps(container: Any) -> dict[str, str]:
    """What a pod sees of the ConfigMaps that the kustomization makes."""
    made = {item["name"]: dict(pair.split("=", 1) for pair in item["literals"]) for item in generators()}
    names = [source["configMapRef"]["name"] for source in container.get("envFrom", ())]
    return {name: value for each in names for name, value in made[each].items()}


def generators() -> list[Any]:
    return list(kustomization()["configMapGenerator"])


def ports_of_image() -> dict[str, int]:
    settings = load(image_environment())
    return {"grpc": host_and_port(settings.listen)[1], "http": host_and_port(settings.http_listen)[1]}


def assert_pinned(image: str) -> None:
    _, separator, tag = image.rpartition(":")
    assert separator, f"{image} has no tag"
    assert re.match(r"\d", tag), f"{image} names no version"


def kustomization() -> Any:
    return yaml.safe_load((ROOT / "deploy/kubernetes/kustomization.yaml").read_text())


def containers() -> Iterator[Any]:
    for item in manifests():
        if item["kind"] in {"Deployment", "Job"}:
            yield from item["spec"]["template"]["spec"]["containers"]


class TestImage:
    def test_it_listens_on_all_addresses_at_the_ports_of_the_defaults(self) -> None:
        settings = load(image_environment())
        assert host_and_port(settings.listen) == ("0.0.0.0", host_and_port(Settings().listen)[1])
        assert host_and_port(settings.http_listen) == ("0.0.0.0", host_and_port(Settings().http_listen)[1])

    def test_by_default_it_requires_tls_and_authentication(self) -> None:
        with pytest.raises(SettingsError) as caught:
            require_secure(load(image_environment()))
        assert len(caught.value.problems) == 2

    def test_it_exposes_the_ports_it_listens_on(self) -> None:
        (exposed,) = arguments("EXPOSE")
        assert {int(port) for port in exposed.split()} == set(ports_of_image().values())

    def test_it_runs_as_a_number_that_is_not_root(self) -> None:
        (user,) = arguments("USER")
        assert all(int(part) > 0 for part in user.split(":"))

    def test_it_starts_the_server_and_stops_it_by_sigterm(self) -> None:
        assert arguments("ENTRYPOINT") == ['["pointsman-server"]']
        assert arguments("CMD") == ['["serve"]']
        assert arguments("STOPSIGNAL") == ["SIGTERM"]

    def test_its_health_check_asks_whether_it_is_alive(self) -> None:
        (check,) = arguments("HEALTHCHECK")
        assert "/health/live" in check
        assert "POINTSMAN_HTTP_LISTEN" in check

    def test_the_last_stage_takes_only_what_was_built(self) -> None:
        last = INSTRUCTIONS[max(i for i, line in enumerate(INSTRUCTIONS) if line.startswith("FROM ")) :]
        assert not [line for line in last if line.startswith("RUN ")]
        assert [line for line in last if line.startswith("COPY ")] == [
            "COPY --from=build /opt/pointsman /opt/pointsman"
        ]

    def test_the_build_sees_the_sources_and_nothing_else(self) -> None:
        rules = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
        assert rules[0] == "*"
        let_in = [rule.removeprefix("!") for rule in rules if rule.startswith("!")]
        assert {"requirements.lock", "pyproject.toml", "server", "clients/python"} <= set(let_in)
        assert all((ROOT / path).exists() for path in let_in)

    def test_it_is_built_by_the_version_of_uv_that_the_makefile_uses(self) -> None:
        (used,) = re.findall(r"UV_VERSION := ([\d.]+)\*", (ROOT / "Makefile").read_text())
        (built,) = re.findall(r"uv==([\d.]+)", DOCKERFILE)
        assert built.startswith(used)


class TestImagesArePinned:
    @pytest.mark.parametrize("service", SERVICES)
    def test_in_compose(self, service: str) -> None:
        assert_pinned(SERVICES[service]["image"])

    def test_in_the_dockerfile(self) -> None:
        (argument,) = [line for line in arguments("ARG") if line.startswith("PYTHON_IMAGE=")]
        assert_pinned(argument.partition("=")[2])
        assert {line.split()[0] for line in arguments("FROM")} == {"${PYTHON_IMAGE}"}

    def test_in_kubernetes_and_all_of_them_are_the_image_of_this_version(self) -> None:
        (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        ours = f"pointsman-server:{version}"
        (kustomized,) = kustomization()["images"]
        assert f"{kustomized['name']}:{kustomized['newTag']}" == ours
        assert {container["image"] for container in containers()} == {ours}
        assert {SERVICES[name]["image"] for name in OURS} == {ours}
        assert f"VERSION={version}" in arguments("ARG")


class TestCompose:
    @pytest.mark.parametrize("service", OURS)
    def test_its_environment_is_one_that_the_server_accepts(self, service: str) -> None:
        settings = load(image_environment() | SERVICES[service]["environment"])
        require(settings, () if service == "migrate" else None)
        if service == "pointsman":
            require_secure(settings)

    def test_every_engine_is_the_one_that_the_urls_name(self) -> None:
        environment = SERVICES["pointsman"]["environment"]
        assert "@postgres:5432/" in environment["DATABASE_URL"]
        assert environment["REDIS_URL"].startswith("redis://redis:6379/")
        assert environment["KAFKA_BOOTSTRAP_SERVERS"] == "kafka:9092"
        assert "INTERNAL://kafka:9092" in SERVICES["kafka"]["environment"]["KAFKA_ADVERTISED_LISTENERS"]

    def test_the_server_waits_for_healthy_engines_and_the_migration(self) -> None:
        waits = {name: wait["condition"] for name, wait in SERVICES["pointsman"]["depends_on"].items()}
        assert waits.pop("migrate") == "service_completed_successfully"
        assert waits == dict.fromkeys(("postgres", "redis", "kafka"), "service_healthy")
        assert all("healthcheck" in SERVICES[name] for name in waits)

    @pytest.mark.parametrize("service", [name for name in SERVICES if "ports" in SERVICES[name]])
    def test_ports_are_published_on_the_loopback_interface_only(self, service: str) -> None:
        assert all(port.startswith("127.0.0.1:") for port in SERVICES[service]["ports"])

    def test_the_ports_of_the_server_are_published_as_they_are(self) -> None:
        assert SERVICES["pointsman"]["ports"] == [f"127.0.0.1:{port}:{port}" for port in ports_of_image().values()]

    def test_what_must_last_lies_in_named_volumes(self) -> None:
        mounted = {mount.split(":")[0] for name in ("postgres", "kafka") for mount in SERVICES[name]["volumes"]}
        assert mounted == set(COMPOSE["volumes"])

    def test_the_server_gets_time_to_drain(self) -> None:
        assert int(SERVICES["pointsman"]["stop_grace_period"].removesuffix("s")) > Settings().drain_seconds

    def test_it_builds_from_the_root(self) -> None:
        assert (ROOT / "deploy" / SERVICES["pointsman"]["build"]["context"]).resolve() == ROOT


class TestKubernetes:
    def test_the_environment_of_the_server_is_one_that_it_accepts(self) -> None:
        (server,) = pod("Deployment")["containers"]
        settings = load(image_environment() | container_environment(server))
        require(settings)
        require_secure(settings)

    def test_the_server_authenticates_and_has_tls_and_is_allowed_nothing_else(self) -> None:
        (server,) = pod("Deployment")["containers"]
        settings = load(image_environment() | container_environment(server))
        assert insecure(settings) == {"anonymous": False, "plaintext": False}
        assert (settings.allow_anonymous, settings.allow_plaintext) == (False, False)

    def test_the_certificate_lies_where_the_secret_is_mounted(self) -> None:
        spec = pod("Deployment")
        (server,) = spec["containers"]
        settings = load(container_environment(server))
        (mount,) = [mount for mount in server["volumeMounts"] if mount["name"] == "tls"]
        (volume,) = [volume for volume in spec["volumes"] if volume["name"] == "tls"]
        assert volume["secret"]["secretName"] == "pointsman-tls"
        names = [settings.tls_cert_file, settings.tls_key_file]
        assert [str(name) for name in names] == [f"{mount['mountPath']}/tls.crt", f"{mount['mountPath']}/tls.key"]

    def test_the_environment_of_the_migration_is_one_that_it_accepts(self) -> None:
        (migrate,) = pod("Job", "pointsman-migrate")["containers"]
        require(load(image_environment() | container_environment(migrate)), ())

    def test_secrets_come_from_a_secret(self) -> None:
        for container in containers():
            engines = [item for item in container["env"] if item["name"] in SAMPLES]
            assert engines
            assert all(item["valueFrom"]["secretKeyRef"]["key"] == item["name"] for item in engines)

    def test_the_ports_are_those_of_the_image(self) -> None:
        (server,) = pod("Deployment")["containers"]
        assert {port["name"]: port["containerPort"] for port in server["ports"]} == ports_of_image()
        for name in ("pointsman", "pointsman-headless"):
            for port in manifest("Service", name)["spec"]["ports"]:
                assert ports_of_image()[port["targetPort"]] == port["port"]

    def test_probes_ask_the_port_that_has_no_tls(self) -> None:
        (server,) = pod("Deployment")["containers"]
        asked = {name: server[name]["httpGet"] for name in ("startupProbe", "livenessProbe", "readinessProbe")}
        assert asked == {
            "startupProbe": {"port": "http", "path": "/health/live"},
            "livenessProbe": {"port": "http", "path": "/health/live"},
            "readinessProbe": {"port": "http", "path": "/health/ready"},
        }

    def test_the_grace_period_is_longer_than_the_drain(self) -> None:
        spec = pod("Deployment")
        settings = load(container_environment(spec["containers"][0]))
        assert spec["terminationGracePeriodSeconds"] >= settings.drain_seconds + 10

    def test_calls_are_refused_before_the_memory_of_the_pod_is_used_up(self) -> None:
        container = pod("Deployment")["containers"][0]
        assert container["resources"]["limits"]["memory"] == "1Gi"
        assert load(container_environment(container)).max_heap_megabytes <= 0.75 * 1024

    def test_services_and_the_disruption_budget_select_the_pods_of_the_server(self) -> None:
        labels = manifest("Deployment")["spec"]["template"]["metadata"]["labels"]
        assert manifest("Deployment")["spec"]["selector"]["matchLabels"] == labels
        assert manifest("Service")["spec"]["selector"] == labels
        assert manifest("Service", "pointsman-headless")["spec"]["selector"] == labels
        assert manifest("PodDisruptionBudget")["spec"]["selector"]["matchLabels"] == labels
        assert manifest("Job", "pointsman-migrate")["spec"]["template"]["metadata"]["labels"] != labels

    def test_clients_that_balance_by_themselves_find_every_pod(self) -> None:
        assert manifest("Service", "pointsman-headless")["spec"]["clusterIP"] == "None"

    @pytest.mark.parametrize(("kind", "name"), [("Deployment", "pointsman"), ("Job", "pointsman-migrate")])
    def test_pods_meet_the_restricted_standard_and_know_nothing_of_the_cluster(self, kind: str, name: str) -> None:
        spec = pod(kind, name)
        assert spec["automountServiceAccountToken"] is False
        assert spec["enableServiceLinks"] is False
        assert spec["securityContext"]["runAsNonRoot"] is True
        assert f"{spec['securityContext']['runAsUser']}:{spec['securityContext']['runAsGroup']}" in arguments("USER")
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in spec["containers"]:
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert "memory" in container["resources"]["limits"]

    def test_the_kustomization_holds_every_manifest(self) -> None:
        listed = set(kustomization()["resources"])
        assert listed == {path.name for path in MANIFEST_FILES} - {"kustomization.yaml"}


@pytest.mark.parametrize(
    "path", [ROOT / "Dockerfile", ROOT / "deploy/compose.yaml", *MANIFEST_FILES], ids=lambda path: path.name
)
def test_every_variable_of_ours_that_is_mentioned_is_a_setting(path: Path) -> None:
    # In comments too. What Kubernetes would set by itself is mentioned once, as what it is.
    mentioned = set(re.findall(r"\b(?:POINTSMAN_[A-Z_]+|[A-Z]+_URL|KAFKA_BOOTSTRAP_SERVERS)\b", path.read_text()))
    known = {row.variable for row in effective(load({}))}
    assert mentioned - {"POINTSMAN_PORT"} <= known
