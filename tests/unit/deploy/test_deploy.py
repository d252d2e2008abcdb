"""What we hand to operators: the image, and the settings that files name. tests/deploy has the chart."""

import re
import tomllib
from pathlib import Path

import pytest
import yaml

from pointsman_server.config.describe import effective
from pointsman_server.config.environment import load
from pointsman_server.config.rules import SettingsError, require_secure
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import host_and_port
from tests.support.kubernetes import image_environment

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
# Continued lines joined, comments left out: one instruction per line.
INSTRUCTIONS = re.sub(r"\\\n\s*", "", re.sub(r"(?m)^#.*\n", "", DOCKERFILE)).splitlines()
DEPLOYED = sorted(path for path in (ROOT / "deploy").rglob("*") if path.suffix in {".yaml", ".tpl", ".txt"})


def arguments(instruction: str) -> list[str]:
    return [line.partition(" ")[2] for line in INSTRUCTIONS if line.startswith(instruction + " ")]


def ports_of_image() -> dict[str, int]:
    settings = load(image_environment())
    addresses = {"grpc": settings.listen, "xds": settings.xds_listen, "http": settings.http_listen}
    return {name: host_and_port(address)[1] for name, address in addresses.items()}


class TestImage:
    def test_it_listens_on_all_addresses_at_the_ports_of_the_defaults(self) -> None:
        settings = load(image_environment())
        assert host_and_port(settings.listen) == ("0.0.0.0", host_and_port(Settings().listen)[1])
        assert host_and_port(settings.xds_listen) == ("0.0.0.0", host_and_port(Settings().xds_listen)[1])
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
        assert last[0] == "FROM scratch"
        assert [line for line in last if line.startswith("COPY ")] == ["COPY --from=build /image /"]

    def test_it_has_tracing_and_installs_no_extra_that_does_not_exist(self) -> None:
        installed = {name for extras in re.findall(r"extras='([\w,-]+)'", DOCKERFILE) for name in extras.split(",")}
        assert "tracing" in installed
        declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        assert installed <= set(declared)

    def test_its_python_is_new_and_has_a_shared_library(self) -> None:
        (base,) = re.findall(r"ARG PYTHON_IMAGE=python:3\.(\d+)-slim-\w+", DOCKERFILE)
        assert int(base) >= 13

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
    def test_in_the_dockerfile(self) -> None:
        (argument,) = [line for line in arguments("ARG") if line.startswith("PYTHON_IMAGE=")]
        assert re.fullmatch(r"PYTHON_IMAGE=python:\d[\w.-]+", argument)
        assert {line.split()[0] for line in arguments("FROM")} == {"${PYTHON_IMAGE}", "scratch"}

    def test_and_ours_are_of_this_version(self) -> None:
        (version,) = re.findall(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
        ours = f"pointsman-server:{version}"
        (kustomized,) = yaml.safe_load((ROOT / "deploy/kubernetes/kustomization.yaml").read_text())["images"]
        assert f"{kustomized['name']}:{kustomized['newTag']}" == ours
        assert f"VERSION={version}" in arguments("ARG")


@pytest.mark.parametrize("path", [ROOT / "Dockerfile", *DEPLOYED], ids=lambda path: str(path.relative_to(ROOT)))
def test_every_variable_of_ours_that_is_mentioned_is_a_setting(path: Path) -> None:
    # In comments too. What Kubernetes would set by itself is mentioned once, as what it is; the load has a client.
    mentioned = set(re.findall(r"\b(?:POINTSMAN_[A-Z_]+|[A-Z]+_URL|KAFKA_BOOTSTRAP_SERVERS)\b", path.read_text()))
    known = {row.variable for row in effective(load({}))}
    assert mentioned - {"POINTSMAN_PORT", "POINTSMAN_SERVER", "POINTSMAN_XDS_SERVER"} <= known
