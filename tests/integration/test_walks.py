"""docs/architecture.md names the modules that a call enters: here they are recorded while calls are answered."""

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import grpc
import pytest
import structlog

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman_server.telemetry import logs
from tests.support.engines import fresh_database, fresh_redis
from tests.support.servers import RunningServer, serving, settings

ROOT = Path(__file__).parents[2]
SERVER = ROOT / "server" / "pointsman_server"
PAGE = (ROOT / "docs" / "architecture.md").read_text()
KEY = RouteKey(tenant="team-a", service="walks", env="prod", version="v1")
ROOMS_OF_CREATE = {
    "adapters",
    "app",
    "config",
    "domain",
    "epochs",
    "events",
    "reads",
    "rpc",
    "runtime",
    "telemetry",
    "writes",
}
# What else runs on the same event loop, by the module whose function the loop calls.
BACKGROUND = re.compile(r"(app|events|ops|telemetry|epochs|audit)/|rpc/fastpath/counters|runtime/refreshed")


@pytest.fixture(scope="module", autouse=True)
def quiet_logs() -> Iterator[None]:
    """Log as a server does: a line for each call would enter modules of its own."""
    logs.configure("info", "json")
    yield
    structlog.reset_defaults()
    logs.look_up_again()


@pytest.fixture(scope="module")
def server(engines, template_database: str) -> Iterator[RunningServer]:
    with fresh_database(template_database) as database_url:
        redis_url = fresh_redis(engines.urls["REDIS_URL"])
        with serving(settings(transport="grpcio", database_url=database_url, redis_url=redis_url)) as running:
            yield running


class Recorder:
    """Collects the modules of the server whose functions run on its event loop for a call."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self.modules: set[str] = set()

    @contextmanager
    def recording(self) -> Iterator[None]:
        self._server.run(self._switch(self._on_event))
        try:
            yield
        finally:
            self._server.run(self._switch(None))

    async def _switch(self, profile: Callable[[FrameType, str, object], None] | None) -> None:
        sys.setprofile(profile)

    def _on_event(self, frame: FrameType, event: str, _argument: object) -> None:
        name = module_of(frame)
        if event == "call" and name and not BACKGROUND.match(root_of(frame)):
            self.modules.add(name)


def module_of(frame: FrameType) -> str:
    """Name the module of a frame as the page does; empty where it is none of the server's."""
    path = Path(frame.f_code.co_filename)
    return path.relative_to(SERVER).as_posix() if path.is_relative_to(SERVER) else ""


def root_of(frame: FrameType) -> str:
    """Name the module of the server that the event loop called."""
    root, at = "", frame
    while at is not None:
        root = module_of(at) or root
        at = at.f_back  # type: ignore[assignment] # the outermost frame has none
    return root


def documented(walk: str) -> set[str]:
    """Read the modules of a walk from the page."""
    (part,) = re.findall(rf"<!-- walk: {walk} -->(.*?)<!-- /walk -->", PAGE, re.DOTALL)
    return set(re.findall(r"`((?!tests/)[a-z_/]+\.py)`", part))


def test_each_walk_of_the_page_is_the_one_that_calls_take(server: RunningServer) -> None:
    with grpc.insecure_channel(server.address) as channel:
        stub = RouteServiceStub(channel)
        create, hit = Recorder(server), Recorder(server)
        with create.recording():
            stub.Create(pb.CreateRequest(key=KEY, url="https://walks.internal:8443"))
        stub.Resolve(pb.ResolveRequest(key=KEY))
        with hit.recording():
            found = stub.Resolve(pb.ResolveRequest(key=KEY))

    assert found.provenance.source == pb.Provenance.SOURCE_LOCAL
    assert hit.modules == documented("hit")
    # A Create passes whole rooms; the page names the modules that decide something.
    assert documented("create") <= create.modules
    assert {name.partition("/")[0] for name in create.modules} == ROOMS_OF_CREATE


def test_every_module_of_the_page_exists() -> None:
    for name in re.findall(r"`((?!tests/)[a-z_]+(?:/[a-z_]+)+\.py)`", PAGE):
        assert (SERVER / name).exists(), name
