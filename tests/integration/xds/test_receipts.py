"""xDS clients count as watchers by what they acknowledge, and as readers as long as they are there."""

import itertools
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.propagation_pb2 import GetPropagationRequest, GetPropagationResponse
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman.v1.usage_pb2 import GetUsageRequest
from tests.support.engines import fresh_database, fresh_redis
from tests.support.processes import run
from tests.support.refusals import refused
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually
from tests.support.xds_streams import XdsStream, stream
from tests.support.xds_world import LDS

URL = "http://10.0.0.1:80"


@dataclass(frozen=True)
class Scene:
    """A server that is called, and one that xDS clients connect to: another one, or the same."""

    api: RunningServer
    xds: RunningServer
    stub: Any
    channel: grpc.Channel
    service: str

    @property
    def key(self) -> RouteKey:
        return RouteKey(tenant="team-a", service=self.service, env="prod", version="v1")

    @property
    def root(self) -> str:
        return f"v1~prod~{self.service}~team-a"

    def propagation(self, revision: int) -> GetPropagationResponse:
        request = GetPropagationRequest(tenant="team-a", service=self.service, env="prod", revision=revision)
        return self.stub.GetPropagation(request)  # type: ignore[no-any-return]


@pytest.fixture(scope="module", params=["one process", "two processes"])
def servers(request: pytest.FixtureRequest, engines: Any, template_database: str) -> Iterator[Any]:
    redis_url = fresh_redis(engines.urls["REDIS_URL"])
    with fresh_database(template_database) as database_url:
        urls = {"database_url": database_url, "redis_url": redis_url}
        if request.param == "one process":
            with serving(settings(roles="api,xds", **urls)) as both:
                yield both, both
        else:
            with serving(settings(roles="api", **urls)) as api, serving(settings(roles="xds", **urls)) as xds:
                yield api, xds


_numbers = itertools.count(1)


@pytest.fixture
def scene(servers: Any) -> Iterator[Scene]:
    api, xds = servers
    with grpc.insecure_channel(api.address) as called, grpc.insecure_channel(xds.xds) as channel:
        stub = RouteServiceStub(called)
        made = Scene(api, xds, stub, channel, f"service-{next(_numbers)}")
        created = stub.Create(pb.CreateRequest(key=made.key, url=URL, active=True)).route
        assert eventually(lambda: xds.app.xds.loader.snapshot.clock.revision >= created.revision)
        yield made


class Reader:
    """Acknowledges everything from a thread of its own, or nothing."""

    def __init__(self, client: XdsStream) -> None:
        self._client = client
        self.acknowledges = threading.Event()
        self.acknowledges.set()
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        try:
            while True:
                response = self._client.read()
                self.acknowledges.wait()
                self._client.acknowledge(response)
        except (grpc.RpcError, StopIteration):
            return


def test_clients_count_once_they_have_acknowledged(scene: Scene) -> None:
    with stream(scene.channel, node="checkout-1") as client:
        client.subscribe_all(scene.root)
        reader = Reader(client)
        assert eventually(lambda: scene.propagation(1).watcher_count == 1)
        reader.acknowledges.clear()
        revision = scene.stub.Deactivate(pb.DeactivateRequest(key=scene.key)).route.revision

        def found() -> tuple[int, int]:
            answer = scene.propagation(revision)
            return answer.watcher_count, answer.applied_count

        assert found() == (1, 0)
        (behind,) = scene.propagation(revision).behind
        assert (behind.name, behind.subject) == ("checkout-1", "anonymous")
        reader.acknowledges.set()
        assert eventually(lambda: found() == (1, 1))
    assert eventually(lambda: found() == (0, 0))


def test_the_command_that_waits_names_who_is_behind(scene: Scene) -> None:
    with stream(scene.channel, node="checkout-2") as client:
        client.subscribe_all(scene.root)
        reader = Reader(client)
        assert eventually(lambda: scene.propagation(1).applied_count == 1)
        reader.acknowledges.clear()
        key = f"team-a/{scene.service}/prod/v1"
        done = run("pointsman", "--server", scene.api.address, "deactivate", key, "--wait=1s")
        assert done.returncode == 5
        assert "checkout-2 (ipv4:127.0.0.1:" in done.stdout + done.stderr
        reader.acknowledges.set()


def test_a_change_that_does_not_concern_a_client_is_acknowledged_by_it_too(scene: Scene) -> None:
    with stream(scene.channel) as client:
        client.subscribe_all(scene.root)
        Reader(client)
        other = RouteKey(tenant="team-b", service="other", env="prod", version=scene.service[-8:])
        revision = scene.stub.Create(pb.CreateRequest(key=other, url=URL)).route.revision
        assert eventually(lambda: scene.propagation(revision).applied_count == 1)


@pytest.mark.parametrize("method", ["Deactivate", "Delete"])
def test_a_route_that_clients_are_led_to_is_in_use(scene: Scene, method: str) -> None:
    with stream(scene.channel) as client:
        client.subscribe(LDS, f"prod~{scene.service}~team-a")
        client.read()
        scene.xds.run(scene.xds.app.usage.recorder.flush())
        (reader,) = scene.stub.GetUsage(GetUsageRequest(key=scene.key)).readers
        assert reader.subject == "anonymous"
        kind = {"Deactivate": pb.DeactivateRequest, "Delete": pb.DeleteRequest}[method]
        request = kind(key=scene.key, if_unused_for=Duration(seconds=60))
        refusal = refused(getattr(scene.stub, method), request)
        assert refusal.reason == "ROUTE_IN_USE"
    scene.stub.Delete(pb.DeleteRequest(key=scene.key))
