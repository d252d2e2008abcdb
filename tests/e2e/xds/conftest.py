"""Servers with the role xds, a backend, and clients that start with what the command prints."""

import json
import re
import subprocess
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from pointsman import Client
from pointsman_server.embedded.tied import tied_to_this_process
from tests.support.certificates import Authority, TlsFiles
from tests.support.engines import fresh_database, fresh_redis
from tests.support.processes import clean_environ, run
from tests.support.servers import serving, settings
from tests.support.waiting import eventually
from tests.support.xds_clients import programs
from tests.support.xds_clients.backends import Backends, backends
from tests.support.xds_clients.probes import Probe

if TYPE_CHECKING:
    from tests.support.engines import BorrowedEngines, Engines

EXPORT = re.compile(r"^export (\w+)=(.+)$", re.MULTILINE)
KEY = "team-a/payments/prod/v1"
NAME = "v1~prod~payments~team-a"
BACKEND = "payments-v1"


@dataclass(frozen=True)
class Service:
    """A server with the roles api and xds, by its addresses, and a live route to a backend."""

    api: str
    xds: str


Start = Callable[..., AbstractContextManager[Service]]


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority()


@pytest.fixture(scope="session")
def tls(authority: Authority, tmp_path_factory: pytest.TempPathFactory) -> TlsFiles:
    """The certificate of servers and backends, for localhost; ``client_ca`` is its authority."""
    files = TlsFiles(tmp_path_factory.mktemp("tls"))
    files.write(authority.server(), authority.pem)
    return files


@pytest.fixture(scope="session")
def running_backends() -> Iterator[Backends]:
    with backends() as running:
        yield running


@pytest.fixture(scope="session")
def backend(running_backends: Backends) -> str:
    """The URL of a backend in plain text."""
    return f"http://127.0.0.1:{running_backends.open(BACKEND)}"


@pytest.fixture(scope="session")
def https_backend(running_backends: Backends, tls: TlsFiles) -> str:
    """The URL of one with a certificate, by name."""
    return f"https://localhost:{running_backends.open('https', tls=(tls.cert, tls.key))}"


@pytest.fixture(scope="session")
def start(template_database: str, engines: "Engines | BorrowedEngines") -> Start:
    """Run a server with a database of its own, in this process: what is tested is what connects to it."""

    @contextmanager
    def start(**values: object) -> Iterator[Service]:
        with fresh_database(template_database) as database_url:
            redis_url = fresh_redis(engines.urls["REDIS_URL"])
            with serving(settings(database_url=database_url, redis_url=redis_url, roles="api,xds", **values)) as server:
                yield Service(server.address, server.xds)

    return start


@pytest.fixture(scope="session")
def service(start: Start, backend: str, https_backend: str) -> Iterator[Service]:
    """A server in plain text, and live routes: to a backend, and to one by https."""
    with start() as running:
        with Client(running.api, timeout=30) as client:
            client.create(KEY, backend)
            client.create("team-a/vault/prod/v1", https_backend)
        yield running


def printed(program: str, file: Path, *options: str, before: tuple[str, ...] = ()) -> dict[str, str]:
    """Print the bootstrap of a program into a file; return the variables that its reader needs, as they are told."""
    done = run("pointsman", *before, "xds", "bootstrap", "--for", program, "--output", str(file), *options)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    return dict(EXPORT.findall(done.stderr))


@contextmanager
def started(program: str, environ: Mapping[str, str]) -> Iterator[Probe]:
    """Run the probe of a gRPC client with exactly these variables. Skips the test where it is not built."""
    more: dict[str, str] = {}
    if program == "node":
        command, more = programs.node_probe()
    else:
        command = {"python": programs.python_probe, "go": programs.go_probe}[program]()
    with Probe(program, command, dict(environ) | more) as probe:
        probe.wait_until_ready()
        yield probe


@contextmanager
def envoy(file: Path, directory: Path) -> Iterator[None]:
    """Run Envoy with a configuration until the block ends; it has been told where to listen for its administration."""
    admin = directory / "admin"
    log = directory / "envoy.log"
    command = [*programs.envoy(), "-c", str(file), "--use-dynamic-base-id", "--admin-address-path", str(admin)]
    with log.open("w") as output:
        process = subprocess.Popen(
            tied_to_this_process([*command, "--log-level", "warning", "--concurrency", "1"]),
            env=clean_environ(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            assert eventually(lambda: admin.exists() or process.poll() is not None), log.read_text()
            assert process.poll() is None, log.read_text()
            yield
        finally:
            process.kill()
            process.wait()


def node_of(file: Path) -> str:
    """Return the id of the node in a bootstrap."""
    return str(json.loads(file.read_text())["node"]["id"])
