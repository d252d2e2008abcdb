"""The compose file: it fits the server, the image and what is mounted. tests/deploy runs what it mounts."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from pointsman_server.config.environment import load
from pointsman_server.config.rules import require, require_secure
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import host_and_port
from tests.support.kubernetes import image_environment

ROOT = Path(__file__).parents[3]
DIRECTORY = ROOT / "deploy" / "compose"
COMPOSE = yaml.safe_load((DIRECTORY / "compose.yaml").read_text())
SERVICES: dict[str, Any] = COMPOSE["services"]
OURS = ("migrate", "pointsman", "load")
SERVERS = ("migrate", "pointsman")


def mounts(service: str) -> dict[str, str]:
    """By their place in the container: the volumes and files that are mounted."""
    return {mount.split(":")[1]: mount.split(":")[0] for mount in SERVICES[service].get("volumes", ())}


def provisioned(kind: str) -> Any:
    (path,) = (DIRECTORY / "grafana" / kind).glob("*.yaml")
    return yaml.safe_load(path.read_text())


class TestServer:
    @pytest.mark.parametrize("service", SERVERS)
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
        settings = load(image_environment())
        addresses = (settings.listen, settings.xds_listen, settings.http_listen)
        ports = [host_and_port(address)[1] for address in addresses]
        assert SERVICES["pointsman"]["ports"] == [f"127.0.0.1:{port}:{port}" for port in ports]

    def test_what_must_last_lies_in_named_volumes(self) -> None:
        mounted = {source for name in SERVICES for source in mounts(name).values() if not source.startswith(".")}
        assert mounted == set(COMPOSE["volumes"])

    def test_the_server_gets_time_to_drain(self) -> None:
        assert int(SERVICES["pointsman"]["stop_grace_period"].removesuffix("s")) > Settings().drain_seconds

    def test_it_builds_from_the_root(self) -> None:
        assert (DIRECTORY / SERVICES["pointsman"]["build"]["context"]).resolve() == ROOT


class TestImages:
    @pytest.mark.parametrize("service", SERVICES)
    def test_they_are_pinned(self, service: str) -> None:
        _, _, tag = SERVICES[service]["image"].rpartition(":")
        assert re.match(r"v?\d", tag), tag

    def test_ours_is_of_this_version(self) -> None:
        (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        assert {SERVICES[name]["image"] for name in OURS} == {f"pointsman-server:{version}"}


class TestMonitoring:
    @pytest.mark.parametrize("service", SERVICES)
    def test_what_is_mounted_from_here_is_there_and_cannot_be_written(self, service: str) -> None:
        local = [mount for mount in SERVICES[service].get("volumes", ()) if mount.startswith(".")]
        assert all((DIRECTORY / mount.split(":")[0]).exists() for mount in local), local
        assert all(mount.endswith(":ro") for mount in local)

    def test_prometheus_scrapes_the_server(self) -> None:
        (job,) = yaml.safe_load((DIRECTORY / "prometheus.yml").read_text())["scrape_configs"]
        port = host_and_port(load(image_environment()).http_listen)[1]
        assert job["static_configs"][0]["targets"] == [f"pointsman:{port}"]

    def test_prometheus_reads_the_mounted_files(self) -> None:
        config = yaml.safe_load((DIRECTORY / "prometheus.yml").read_text())
        inside = mounts("prometheus")
        assert "--config.file=/etc/prometheus/prometheus.yml" in SERVICES["prometheus"]["command"]
        assert inside["/etc/prometheus/prometheus.yml"] == "./prometheus.yml"
        assert [str(Path(pattern).parent) for pattern in config["rule_files"]] == ["/etc/prometheus/alerts"]
        assert list((DIRECTORY / inside["/etc/prometheus/alerts"]).glob("*.yaml"))

    def test_grafana_asks_this_prometheus(self) -> None:
        assert "/etc/grafana/provisioning/datasources" in mounts("grafana")
        (source,) = provisioned("datasources")["datasources"]
        assert source["url"] == "http://prometheus:9090"
        assert SERVICES["prometheus"]["ports"] == ["127.0.0.1:9090:9090"]

    def test_grafana_has_the_dashboards_of_the_chart(self) -> None:
        assert "/etc/grafana/provisioning/dashboards" in mounts("grafana")
        (provider,) = provisioned("dashboards")["providers"]
        directory = DIRECTORY / mounts("grafana")[provider["options"]["path"]]
        dashboards = [json.loads(path.read_text()) for path in directory.glob("*.json")]
        assert dashboards
        assert len({dashboard["uid"] for dashboard in dashboards}) == len(dashboards)

    def test_the_load_calls_the_server_and_waits_for_it(self) -> None:
        service = SERVICES["load"]
        assert service["environment"] == {
            "POINTSMAN_SERVER": "pointsman:50051",
            "POINTSMAN_XDS_SERVER": "pointsman:50052",
        }
        assert service["entrypoint"] == ["python", *mounts("load")]
        assert service["depends_on"] == {"pointsman": {"condition": "service_healthy"}}
