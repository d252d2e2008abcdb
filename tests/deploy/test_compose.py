"""What the compose file mounts and starts: it by the reference loader, the load and Prometheus as processes."""

import json
import math
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.support import debian
from tests.support.helm import CHART, DEPLOY
from tests.support.kafka import mock_cluster
from tests.support.processes import clean_environ, get_text, serve
from tests.support.prometheus import Prometheus, configured_prometheus
from tests.support.promql import with_window
from tests.support.rules import RULE_FILES, dashboards, panels
from tests.support.tools import BIN, require
from tests.support.waiting import eventually

COMPOSE = DEPLOY / "compose"
# The program of compose-go, by which Docker Compose reads its files, has no name of its own.
LOADER = BIN / "cmd"
# Panels of what a healthy trial without TLS and authentication does not have.
STILL = {
    "resources: Calls denied",
    "resources: Calls over a rate",
    "resources: Certificates end in",
    "resources: Credentials verified",
    "resources: Reloads of keys and policy",
}
CALLS = r'^grpc_server_handled_total\{grpc_code="(\w+)",grpc_method="(\w+)",.*\} (\S+)$'


@pytest.mark.go
def test_docker_compose_takes_the_file() -> None:
    require("compose-go", LOADER.exists(), "run `make tools`")
    command = [str(LOADER), "-format", "json", "compose.yaml"]
    done = subprocess.run(command, cwd=COMPOSE, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    services = json.loads(done.stdout)["services"]
    written = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]
    assert services.keys() == written.keys()
    sources = [
        mount["source"] for each in services.values() for mount in each.get("volumes", ()) if mount["type"] == "bind"
    ]
    assert sources
    assert all(Path(source).exists() for source in sources)


@pytest.fixture(scope="module")
def server(template_database: str, engines: Any) -> Iterator[str]:
    """The HTTP URL of a server under the load of the compose file."""
    from tests.support.engines import fresh_database, fresh_redis

    with fresh_database(template_database) as database, mock_cluster() as brokers:
        redis = fresh_redis(engines.urls["REDIS_URL"])
        environ = {"DATABASE_URL": database, "REDIS_URL": redis, "KAFKA_BOOTSTRAP_SERVERS": brokers}
        environ |= {"POINTSMAN_REDIS_TIMEOUT_SECONDS": "5", "POINTSMAN_HEARTBEAT_SECONDS": "1"}
        composed = yaml.safe_load((COMPOSE / "compose.yaml").read_text())["services"]["pointsman"]["environment"]
        environ |= {"POINTSMAN_ROLES": composed["POINTSMAN_ROLES"], "POINTSMAN_XDS_LISTEN": "127.0.0.1:0"}
        with (
            serve(**environ) as (process, address, url),
            load(address, f"127.0.0.1:{process.log('serving')[0]['xds_port']}"),
        ):
            yield url


@contextmanager
def load(address: str, xds_address: str) -> Iterator[None]:
    """Run the load, and stop it as Docker does."""
    process = subprocess.Popen(
        [sys.executable, str(COMPOSE / "load.py")],
        env=clean_environ() | {"POINTSMAN_SERVER": address, "POINTSMAN_XDS_SERVER": xds_address},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield
        assert process.poll() is None, process.communicate()[0]
    finally:
        process.send_signal(signal.SIGTERM)
        try:
            output = process.communicate(timeout=60)[0]
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
    assert process.returncode == 0, output


def asked_of_panels(window: str) -> dict[str, str]:
    """The expressions of all panels, for all servers, by their dashboards and titles."""
    return {
        f"{name}: {panel['title']}": with_window(re.sub(r"\$(namespace|instance)", ".*", target["expr"]), window)
        for name, dashboard in dashboards().items()
        for panel in panels(dashboard)
        for target in panel["targets"]
    }


def has_values(series: list[dict[str, Any]]) -> bool:
    return any(not math.isnan(float(one["value"][1])) for one in series)


def calls(url: str) -> dict[tuple[str, str], float]:
    """How many calls the server has answered, by method and code."""
    found = re.findall(CALLS, get_text(f"{url}/metrics"), re.MULTILINE)
    return {(method, code): float(count) for code, method, count in found}


def test_the_load_reads_changes_watches_and_errs(server: str) -> None:
    wanted = {
        ("Resolve", "OK"),
        ("Resolve", "NotFound"),
        ("BatchResolve", "OK"),
        ("Import", "OK"),
        ("Update", "OK"),
        ("Update", "InvalidArgument"),
        ("Create", "AlreadyExists"),
        ("Deactivate", "OK"),
        ("Activate", "OK"),
    }
    assert eventually(lambda: wanted <= {call for call, count in calls(server).items() if count}, 60), calls(server)
    assert eventually(
        lambda: re.search(r"^pointsman_watchers\S* [1-9]", get_text(f"{server}/metrics"), re.MULTILINE), 30
    )


@pytest.fixture(scope="module")
def prometheus(server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Prometheus]:
    """Prometheus by the configuration of the compose file: other addresses and paths, and quicker."""
    text = (COMPOSE / "prometheus.yml").read_text().replace("pointsman:9464", server.removeprefix("http://"))
    text = text.replace("/etc/prometheus/alerts", str(CHART / "alerts")).replace("5s", "1s")
    with configured_prometheus(tmp_path_factory.mktemp("prometheus"), text) as running:
        yield running


def test_promtool_takes_the_configuration(tmp_path: Path) -> None:
    promtool = require("promtool", debian.find("promtool"), "run `make tools`")
    config = tmp_path / "prometheus.yml"
    text = (COMPOSE / "prometheus.yml").read_text()
    config.write_text(text.replace("/etc/prometheus/alerts", str(CHART / "alerts")))
    checked = subprocess.run(
        [str(promtool), "check", "config", str(config)], capture_output=True, text=True, check=False
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
    assert f"{len(RULE_FILES)} rule files found" in checked.stdout, checked.stdout


def test_prometheus_scrapes_the_server_and_evaluates_the_rules(prometheus: Prometheus) -> None:
    assert eventually(lambda: prometheus.query('up{job="pointsman",namespace="compose"} == 1'), 30)
    assert eventually(lambda: prometheus.query("namespace:pointsman_call_errors:ratio_rate5m"), 30)
    assert prometheus.broken_rules() == []


def test_the_load_makes_the_dashboards_move(prometheus: Prometheus) -> None:
    def empty() -> set[str]:
        return {name for name, asked in asked_of_panels("10s").items() if not has_values(prometheus.query(asked))}

    assert eventually(lambda: empty() <= STILL, 60), empty() - STILL
