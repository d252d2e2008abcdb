"""What is measured: which call, on which of the servers, and the layer that is to answer it."""

import itertools
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from tests.bench import requests
from tests.bench.children import Child
from tests.bench.generators import Ghz, H2load, Load
from tests.bench.layers import LayerCheck
from tests.bench.measuring import Row, Side, Subject
from tests.bench.rig import Servers

WARM_UP_CREATES = 100


@dataclass(frozen=True, slots=True)
class Files:
    """What the generators send."""

    plain: Path
    exact: Path
    work: Path

    @classmethod
    def write(cls, work: Path) -> "Files":
        """Write the files that stay the same."""
        return cls(
            requests.write_resolves(work / "plain.json"),
            requests.write_resolves(work / "exact.json", exact=True),
            work,
        )


@dataclass(frozen=True, slots=True)
class Catalogue:
    """Makes the subjects, for generators, files and seconds a run."""

    ghz: Ghz
    h2load: H2load | None
    files: Files
    seconds: float

    def subjects(self, transport: str, servers: Servers) -> Iterator[Subject]:
        """Make the subjects of one transport."""
        yield self._resolve(transport, "local cache", "LOCAL", servers.noop, servers.holding)
        yield self._resolve(transport, "Redis", "REDIS", servers.noop, servers.forgetful)
        yield self._resolve(transport, "PostgreSQL", "POSTGRES", servers.noop, servers.holding, exact=True)
        yield self._create(transport, servers)
        if self.h2load:
            yield self._ceiling(self.h2load, transport, servers)

    def _resolve(
        self, transport: str, layer: str, source: str, noop: Child, server: Child, *, exact: bool = False
    ) -> Subject:
        data = self.files.exact if exact else self.files.plain
        return Subject(
            Row("ghz", transport, f"Resolve, {layer}"),
            self._noop(noop),
            Side(server, self._ghz(server, data), LayerCheck(server, source, exact=exact)),
            partial(self.ghz.warm_up, server.address, "Resolve", data, len(requests.resolves())),
        )

    def _create(self, transport: str, servers: Servers) -> Subject:
        server = servers.holding
        numbers = itertools.count()

        def data() -> Path:
            # Every run makes routes of a tenant of its own: none is there yet.
            tenant = f"{transport}-{next(numbers)}"
            return requests.write_creates(self.files.work / "creates.json", tenant)

        return Subject(
            Row("ghz", transport, "Create"),
            self._noop(servers.noop),
            Side(server, lambda: self.ghz.run(server.address, "Create", data(), self.seconds)),
            lambda: self.ghz.warm_up(server.address, "Create", data(), WARM_UP_CREATES),
        )

    def _ceiling(self, h2load: H2load, transport: str, servers: Servers) -> Subject:
        def load(server: Child) -> Callable[[], Load]:
            return partial(h2load.run, server.address, "Resolve", self.seconds)

        server = servers.holding
        return Subject(
            Row("h2load", transport, "Resolve, local cache"),
            Side(servers.noop, load(servers.noop)),
            Side(server, load(server), LayerCheck(server, "LOCAL")),
            lambda: None,  # it is the server that ghz had
        )

    def _noop(self, server: Child) -> Side:
        return Side(server, self._ghz(server, self.files.plain))

    def _ghz(self, server: Child, data: Path) -> Callable[[], Load]:
        return partial(self.ghz.run, server.address, "Resolve", data, self.seconds)
