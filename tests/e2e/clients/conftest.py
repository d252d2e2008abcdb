"""Servers for the gRPC clients of other languages: each transport, in plaintext and by TLS, as a process."""

import itertools
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.support.certificates import Authority, Pair, TlsFiles
from tests.support.engines import fresh_database, fresh_redis
from tests.support.processes import ServerProcess, serve
from tests.support.servers import EVERYBODY

TRANSPORTS = ("grpcio", "envoy")
URL = "https://payments.internal:8443"


@dataclass(frozen=True)
class Door:
    """A server, and what a client needs to call it; by TLS where there is an ``authority``."""

    process: ServerProcess
    address: str
    http: str
    database_url: str
    files: TlsFiles
    authority: Authority | None = None

    @property
    def target(self) -> str:
        """The address by name, as certificates have it."""
        return self.address.replace("127.0.0.1", "localhost")

    def waiting(self) -> int:
        """Return how many statements of the server wait for a lock."""
        with psycopg.connect(self.database_url, autocommit=True) as connection:
            row = connection.execute("SELECT count(*) FROM pg_locks WHERE NOT granted").fetchone()
        return row[0] if row else 0

    @contextmanager
    def listing_blocked(self) -> Iterator[None]:
        """Have every List wait until the block ends."""
        with psycopg.connect(self.database_url) as connection:
            connection.execute("LOCK TABLE routes IN ACCESS EXCLUSIVE MODE")
            yield
            connection.rollback()


class Doors:
    """Starts servers that end with the test or module."""

    def __init__(self, stack: ExitStack, template: str, redis: str, directory: Path) -> None:
        self._stack = stack
        self._template = template
        self._redis = redis
        self._directory = directory

    def open(self, transport: str, authority: Authority | None, *, mutual: bool = False, **more: str) -> Door:
        """Start a server, by TLS where there is an ``authority``; ``mutual``: clients need its certificates too."""
        files = TlsFiles(self._directory)
        database_url = self._stack.enter_context(fresh_database(self._template))
        environ: dict[str, str] = {
            "DATABASE_URL": database_url,
            "REDIS_URL": fresh_redis(self._redis),
            "POINTSMAN_TRANSPORT": transport,
            "POINTSMAN_ROLES": "api",
            "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5",
            "POINTSMAN_DATABASE_TIMEOUT_SECONDS": "30",
        }
        if authority:
            files.write(authority.server(), authority.pem)
            environ |= {"POINTSMAN_TLS_CERT_FILE": str(files.cert), "POINTSMAN_TLS_KEY_FILE": str(files.key)}
        if mutual:
            environ |= {"POINTSMAN_TLS_CLIENT_CA_FILE": str(files.client_ca), "POINTSMAN_POLICY_FILE": str(EVERYBODY)}
        process, address, http = self._stack.enter_context(serve(**(environ | more)))
        return Door(process, address, http, database_url, files, authority)


@pytest.fixture(scope="session")
def authority() -> Authority:
    """The authority of the servers and of their clients."""
    return Authority()


@pytest.fixture(scope="session")
def client_pair(authority: Authority) -> Pair:
    """The certificate of a client."""
    return authority.client(dns=("checkout.internal",))


def _doors(engines, template: str, directory: Path) -> Iterator[Doors]:
    with ExitStack() as stack:
        yield Doors(stack, template, engines.urls["REDIS_URL"], directory)


@pytest.fixture
def doors(engines, template_database: str, tmp_path: Path) -> Iterator[Doors]:
    """Starts servers of one test alone."""
    yield from _doors(engines, template_database, tmp_path)


@pytest.fixture(scope="module", params=list(itertools.product(TRANSPORTS, ("plaintext", "tls"))), ids="-".join)
def door(
    request: pytest.FixtureRequest,
    engines,
    template_database: str,
    tmp_path_factory: pytest.TempPathFactory,
    authority: Authority,
) -> Iterator[Door]:
    """A server that the tests of a module share."""
    transport, security = request.param
    for doors in _doors(engines, template_database, tmp_path_factory.mktemp("door")):
        yield doors.open(transport, authority if security == "tls" else None)


_numbers = itertools.count(1)


@pytest.fixture
def key() -> Mapping[str, str]:
    """A key that no other test uses."""
    return {"tenant": f"tenant-{next(_numbers)}", "service": "payments", "env": "prod", "version": "v1"}
