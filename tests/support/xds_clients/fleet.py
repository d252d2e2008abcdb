"""A Pointsman server with the role xds, backends, and a client of each kind, for tests that share them."""

import itertools
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import grpc

from pointsman import Client
from pointsman.xds.options import ControlPlane, Program
from tests.support.certificates import Authority
from tests.support.processes import free_port
from tests.support.servers import serving, settings
from tests.support.xds_clients.backends import Backends, backends
from tests.support.xds_clients.clients import KINDS, XdsClient, wait_for_door, xds_clients
from tests.support.xds_clients.probes import PATIENCE_SECONDS, Counts

OK = grpc.StatusCode.OK
BACKENDS = ("b1", "b2", "b3")

_numbers = itertools.count(1)


def failed(counts: Counts) -> dict[str, int]:
    """Return how many calls failed, by their status."""
    return {code.name: calls for (code, _), calls in counts.items() if code is not OK}


def go_on(clients: Iterable[XdsClient], name: str, count: int) -> None:
    """Wait until ``count`` further calls of the target ``name`` have ended in every client."""
    goals = [(each.probe, each.probe.calls(name) + count) for each in clients]
    for probe, goal in goals:
        probe.wait_for_calls(name, goal)


def check_none_failed(clients: Iterable[XdsClient], name: str) -> None:
    """Check that no call of the target ``name`` has failed in any client. Raises AssertionError."""
    bad = {each.kind: (failed(each.probe.summary(name)), _failures(each, name)) for each in clients}
    bad = {kind: found for kind, found in bad.items() if found[0]}
    assert not bad, f"calls have failed: {bad}"


def _failures(client: XdsClient, name: str) -> list[str]:
    return [str(answer) for answer in client.probe.changes(name) if answer.code is not OK]


@dataclass
class XdsServer:
    """A server that starts and stops while its clients go on. Its ports stay the same."""

    settings: dict[str, object]
    _stack: ExitStack = field(default_factory=ExitStack)

    @classmethod
    def on(cls, **values: object) -> "XdsServer":
        """Return a server with these settings, on free ports."""
        ports = {"listen": f"127.0.0.1:{free_port()}", "xds_listen": f"127.0.0.1:{free_port()}"}
        return cls({"roles": "api,xds", "drain_seconds": 1, "lame_duck_seconds": 0} | ports | values)

    @property
    def api(self) -> str:
        """Where RouteService listens."""
        return str(self.settings["listen"])

    @property
    def plane(self) -> ControlPlane:
        """Where clients find xDS."""
        return ControlPlane((str(self.settings["xds_listen"]),))

    def start(self, **changes: object) -> None:
        """Start it, with these settings in place of others."""
        self._stack.enter_context(serving(settings(**self.settings | changes)))

    def stop(self) -> None:
        """Drain it, and stop it."""
        self._stack.close()


@dataclass(frozen=True)
class Fleet:
    """``urls`` are the backends, by their ids; ``ca`` is whom the clients trust for https URLs."""

    server: XdsServer
    api: Client
    backends: Backends
    urls: dict[str, str]
    clients: dict[Program, XdsClient]
    ca: Authority

    def family(self) -> str:
        """Return a family that no other test uses."""
        return f"tenant-{next(_numbers)}/payments/prod"


@contextmanager
def fleet(database_url: str, redis_url: str, directory: Path, kinds: Iterable[Program] = KINDS) -> Iterator[Fleet]:
    """Run it all until the block ends. ``directory`` takes the file of the authority."""
    ca = Authority()
    ca_file = directory / "upstreams.pem"
    ca_file.write_bytes(ca.pem)
    server = XdsServer.on(database_url=database_url, redis_url=redis_url)
    with ExitStack() as stack:
        stack.callback(server.stop)
        server.start()
        api = stack.enter_context(Client(server.api, timeout=PATIENCE_SECONDS))
        running = stack.enter_context(backends())
        urls = {name: f"http://127.0.0.1:{running.open(name)}" for name in BACKENDS}
        clients = stack.enter_context(xds_clients(server.plane, kinds, https_ca_file=str(ca_file)))
        for client in clients.values():
            wait_for_door(client)
        yield Fleet(server, api, running, urls, clients, ca)
