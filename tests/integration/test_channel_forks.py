"""A process with a channel forks: the child connects anew, and the parent goes on."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from pointsman import Client
from tests.support.processes import clean_environ
from tests.support.servers import serving, settings
from tests.support.xds_clients.backends import backends

FAMILY = "team-a/payments/prod"
FORKS = 1
BOTH = ["one", "two"]
ROOT = Path(__file__).parents[2]


@pytest.mark.parametrize("support", ["", "1"])
def test_under_multiprocessing(database_url: str, redis_url: str, support: str) -> None:
    """``support``: whether the Python part of gRPC takes part in forks; the core does so unless that is 0."""
    with serving(settings(database_url=database_url, redis_url=redis_url)) as server, backends() as servers:
        with Client(server.address) as writer:
            for version, name in {"v1": "one", "v2": "two"}.items():
                writer.create(f"{FAMILY}/{version}", f"http://127.0.0.1:{servers.open(name)}")
            writer.set_traffic(FAMILY, {"v1": 5_000, "v2": 5_000})
        command = [sys.executable, "-m", "tests.support.channel_program", server.address, FAMILY, str(FORKS)]
        environ = {**clean_environ(), **({"GRPC_ENABLE_FORK_SUPPORT": support} if support else {})}
        done = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [BOTH, *FORKS * [[BOTH, 1], BOTH]]
