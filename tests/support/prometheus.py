"""A real Prometheus that scrapes servers of a test once a second, and evaluates rules as often."""

import json
import math
import os
import subprocess
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import yaml

from tests.support import debian
from tests.support.processes import free_port
from tests.support.tools import require
from tests.support.waiting import eventually

PATIENCE_SECONDS = 30.0
JOB = "pointsman"
# Reads until this process has ended, even by a kill: then Prometheus ends too.
WATCHDOG = 'cat >/dev/null; kill -9 "$0"'


class Prometheus:
    """A running Prometheus; its files are in ``directory``."""

    def __init__(self, directory: Path, url: str) -> None:
        self._directory = directory
        self.url = url

    def scrape(self, *urls: str) -> None:
        """Scrape these servers from now on, each by the URL where operations listen."""
        targets = [{"targets": [urllib.parse.urlsplit(url).netloc for url in urls]}]
        # By a rename, as Prometheus reads the file when it changes.
        draft = self._directory / "targets.new"
        draft.write_text(json.dumps(targets))
        draft.rename(self._directory / "targets.json")

    def query(self, expression: str) -> list[dict[str, Any]]:
        """Evaluate an expression now, and return its series, each with ``metric`` and ``value``."""
        result = self._get("query", query=expression)["result"]
        assert isinstance(result, list)
        return result

    def firing(self) -> Mapping[str, dict[str, Any]]:
        """Return the alerts that fire now, by name; of several with one name the last."""
        return {a["labels"]["alertname"]: a for a in self._get("alerts")["alerts"] if a["state"] == "firing"}

    def fired(self, since: float) -> set[str]:
        """Return the names of the alerts that have fired since a time, in seconds since 1970."""
        seconds = max(1, math.ceil(time.time() - since))
        series = self.query(f'max by (alertname) (max_over_time(ALERTS{{alertstate="firing"}}[{seconds}s]))')
        return {one["metric"]["alertname"] for one in series}

    def broken_rules(self) -> list[str]:
        """Return what is wrong with rules that cannot be evaluated."""
        groups = self._get("rules")["groups"]
        return [f"{rule['name']}: {rule['lastError']}" for g in groups for rule in g["rules"] if rule.get("lastError")]

    def _get(self, path: str, **parameters: str) -> dict[str, Any]:
        data = urllib.parse.urlencode(parameters).encode() or None
        try:
            with urllib.request.urlopen(f"{self.url}/api/v1/{path}", data, timeout=PATIENCE_SECONDS) as answer:
                found: dict[str, Any] = json.load(answer)
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from error
        assert found["status"] == "success"
        data_of: dict[str, Any] = found["data"]
        return data_of


@contextmanager
def running_prometheus(directory: Path, rules: Sequence[Mapping[str, Any]]) -> Iterator[Prometheus]:
    """Run Prometheus with one file of rules for each of ``rules``, until the block ends."""
    for number, content in enumerate(rules):
        (directory / f"rules-{number}.yaml").write_text(yaml.safe_dump(content))
    config = {
        "global": {"scrape_interval": "1s", "scrape_timeout": "1s", "evaluation_interval": "1s"},
        "rule_files": [str(directory / "rules-*.yaml")],
        "scrape_configs": [
            {
                "job_name": JOB,
                "file_sd_configs": [{"files": [str(directory / "targets.json")], "refresh_interval": "1s"}],
            }
        ],
    }
    (directory / "targets.json").write_text("[]")
    with configured_prometheus(directory, yaml.safe_dump(config)) as prometheus:
        yield prometheus


@contextmanager
def configured_prometheus(directory: Path, config: str) -> Iterator[Prometheus]:
    """Run Prometheus by the text of a configuration, until the block ends."""
    program = require("prometheus", debian.find("prometheus"), "make tools fetches it")
    (directory / "prometheus.yaml").write_text(config)
    port = free_port()
    prometheus = Prometheus(directory, f"http://127.0.0.1:{port}")
    command = [str(program), f"--config.file={directory}/prometheus.yaml", f"--storage.tsdb.path={directory}/data"]
    with (directory / "prometheus.log").open("ab") as log:
        process = subprocess.Popen(
            [*command, f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            env=os.environ | {"GOMAXPROCS": "2"},
        )
    watchdog = subprocess.Popen(["sh", "-c", WATCHDOG, str(process.pid)], stdin=subprocess.PIPE, start_new_session=True)
    try:
        assert eventually(lambda: process.poll() is not None or _answers(prometheus), PATIENCE_SECONDS)
        assert process.poll() is None, (directory / "prometheus.log").read_text()
        yield prometheus
    finally:
        # Before the pid is free for another process.
        watchdog.kill()
        watchdog.communicate()
        process.kill()
        process.wait()


def _answers(prometheus: Prometheus) -> bool:
    with suppress(OSError), urllib.request.urlopen(f"{prometheus.url}/-/ready", timeout=1) as answer:
        return bool(answer.status == 200)
    return False
