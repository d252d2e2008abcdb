"""One xDS client of each kind, with the bootstrap that ``pointsman xds bootstrap`` prints for it."""

import json
import socket
import subprocess
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from pointsman import xds
from pointsman.xds.bootstrap import Bootstrap, grpc_bootstrap
from pointsman.xds.configuration import CONTENT_VARIABLE
from pointsman.xds.envoy import envoy_bootstrap
from pointsman.xds.options import ControlPlane, Node, Program, Upstreams
from pointsman_server.embedded.tied import tied_to_this_process
from tests.support.processes import free_port
from tests.support.waiting import eventually
from tests.support.xds_clients import programs
from tests.support.xds_clients.probes import Probe

KINDS = tuple(Program)
GRPC_KINDS = tuple(kind for kind in Program if kind is not Program.ENVOY)
# Those that connect to the server by TLS, and so with a certificate or a token.
TLS_KINDS = (Program.PYTHON, Program.GO)
ANY_PORT = "127.0.0.1:0"


@dataclass(frozen=True)
class XdsClient:
    """A client of a kind. ``door`` is where its Envoy listens; empty for gRPC, which needs none."""

    kind: Program
    probe: Probe
    door: str = ""

    def call(self, name: str, key: str, *, authority: str = "", **options: object) -> None:
        """Call ``tenant/service/env``, or with a version, without stop; ``name`` stands for it from then on.

        ``authority`` chooses the new style of names. ``options`` are those of ``Probe.target``.
        """
        if self.door:
            self.probe.target(name, self.door, authority=xds.name(key), **options)  # type: ignore[arg-type]
        else:
            self.probe.target(name, xds.target(key, authority=authority), **options)  # type: ignore[arg-type]


@contextmanager
def xds_client(
    kind: Program, servers: ControlPlane, *, node: str = "", https_ca_file: str = "", families: tuple[str, ...] = ()
) -> Iterator[XdsClient]:
    """Run a client until the block ends; skips the test where its program is not built.

    ``https_ca_file``: whom it trusts for https URLs. ``families``: of an Envoy, those that it routes to.
    """
    about = Node(node or f"test-{kind}")
    if kind is Program.ENVOY:
        listen = f"127.0.0.1:{free_port()}"
        upstreams = Upstreams(https_ca_file, listen, families, ANY_PORT)
        with _envoy(envoy_bootstrap(servers, about, upstreams)), Probe(kind, programs.python_probe(), {}) as probe:
            probe.wait_until_ready()
            yield XdsClient(kind, probe, listen)
        return
    made = grpc_bootstrap(kind, servers, about, Upstreams(https_ca_file))
    command, environ = _program(kind)
    environ |= made.environment | {CONTENT_VARIABLE: json.dumps(made.document)}
    with Probe(kind, command, environ) as probe:
        probe.wait_until_ready()
        yield XdsClient(kind, probe)


@contextmanager
def xds_clients(
    servers: ControlPlane, kinds: Iterable[Program] = KINDS, *, https_ca_file: str = ""
) -> Iterator[dict[Program, XdsClient]]:
    """Run one client of each kind until the block ends."""
    with ExitStack() as stack:
        yield {kind: stack.enter_context(xds_client(kind, servers, https_ca_file=https_ca_file)) for kind in kinds}


def wait_for_door(client: XdsClient) -> None:
    """Wait until the Envoy of a client, if it has one, listens: it has its listener by xDS."""
    if client.door:
        assert eventually(lambda: _is_open(client.door)), f"Envoy does not listen at {client.door}"


def _program(kind: Program) -> tuple[list[str], dict[str, str]]:
    if kind is Program.NODE:
        return programs.node_probe()
    return (programs.go_probe() if kind is Program.GO else programs.python_probe()), {}


@contextmanager
def _envoy(bootstrap: Bootstrap) -> Iterator[None]:
    with tempfile.TemporaryDirectory(prefix="pointsman-envoy-") as directory:
        configuration = Path(directory) / "envoy.json"
        configuration.write_text(json.dumps(bootstrap.document))
        options = ["--disable-hot-restart", "--concurrency", "1", "--log-level", "error"]
        command = [*programs.envoy(), "--config-path", str(configuration), *options]
        process = subprocess.Popen(tied_to_this_process(command), stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        with process:
            try:
                yield
            finally:
                process.kill()


def _is_open(address: str) -> bool:
    host, _, port = address.rpartition(":")
    with suppress(OSError), socket.create_connection((host, int(port)), timeout=5):
        return True
    return False
