"""A process with a channel forks: the child connects anew, and the parent goes on."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pointsman import Client
from tests.support.engines import fresh_database, fresh_redis
from tests.support.processes import clean_environ
from tests.support.servers import serving, settings
from tests.support.xds_clients.backends import backends

FORKS = 1
BOTH = ["one", "two"]
ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def server(engines: Any, template_database: str) -> Iterator[str]:
    """The address of a server."""
    with fresh_database(template_database) as database_url:
        chosen = settings(database_url=database_url, redis_url=fresh_redis(engines.urls["REDIS_URL"]))
        with serving(chosen) as running:
            yield running.address


@pytest.fixture(scope="module")
def urls() -> Iterator[dict[str, str]]:
    """Where two backends are, by the versions that lead there."""
    with backends() as servers:
        yield {version: f"http://127.0.0.1:{servers.open(name)}" for version, name in (("v1", "one"), ("v2", "two"))}


@pytest.mark.parametrize("support", ["", "1"])
def test_under_multiprocessing(server: str, urls: dict[str, str], support: str) -> None:
    """``support``: whether the Python part of gRPC takes part in forks; the core does so unless that is 0."""
    family = f"team-a/payments{support}/prod"
    with Client(server) as writer:
        for version, url in urls.items():
            writer.create(f"{family}/{version}", url)
        writer.set_traffic(family, {"v1": 5_000, "v2": 5_000})
    command = [sys.executable, "-m", "tests.support.channel_program", server, family, str(FORKS)]
    environ = {**clean_environ(), **({"GRPC_ENABLE_FORK_SUPPORT": support} if support else {})}
    done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [BOTH, *FORKS * [[BOTH, 1], BOTH]]
