"""Resolves that wait for Redis or PostgreSQL, by the fast path of each transport, with every check enabled."""

import concurrent.futures
import threading
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman_server.adapters.postgres.api_key_store import PostgresApiKeyStore
from pointsman_server.domain.api_keys import mint
from pointsman_server.domain.grants import parse_grant
from pointsman_server.domain.routes import RouteKey as Key
from pointsman_server.domain.routes import Snapshot
from pointsman_server.ports.credentials import KeyDraft
from tests.support.engines import fresh_database, fresh_redis
from tests.support.fakes import Gate
from tests.support.refusals import refused
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

URL = "https://payments.internal:8443"
EXACT = pb.CONSISTENCY_FULLY_CONSISTENT
Source = pb.Provenance
Code = grpc.StatusCode


class Scene:
    """A server with every check on, and a permitted caller."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        minted = mint()
        grants = (parse_grant("admin:tenant-*"), parse_grant("admin:team-*"))
        server.run(
            PostgresApiKeyStore(server.app.database).create(
                KeyDraft("caller", grants, "tests", timedelta(days=1)), minted
            )
        )
        assert server.app.access.api_keys
        server.run(server.app.access.api_keys.known.renew())
        self.caller: dict[str, Any] = {"metadata": [("authorization", f"Bearer {minted.text}")], "timeout": 30}

    def forget(self) -> None:
        """Drop everything that is held locally, as when other keys crowded it out."""
        self.server.run(self._forget())

    async def _forget(self) -> None:
        self.server.app.local.drop()


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def scene(request: pytest.FixtureRequest, engines, template_database: str) -> Iterator[Scene]:
    with fresh_database(template_database) as url:
        chosen = settings(
            transport=request.param,
            database_url=url,
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            api_keys=True,
            cache_local_ttl_seconds=60,
        )
        with serving(chosen) as server:
            yield Scene(server)


@pytest.fixture
def stub(scene: Scene) -> Iterator[RouteServiceStub]:
    with grpc.insecure_channel(scene.server.address, [("grpc.enable_retries", 0)]) as channel:
        yield RouteServiceStub(channel)


@pytest.fixture
def uncached(scene: Scene, stub: RouteServiceStub, key: RouteKey) -> RouteKey:
    """A key that Redis and PostgreSQL know, and whose caller was seen before."""
    stub.Create(pb.CreateRequest(key=key, url=URL, labels={"tier": "gold"}), **scene.caller)
    scene.forget()
    return key


class Held:
    """Loads of the store that wait until they are let go."""

    def __init__(self, server: RunningServer) -> None:
        self._server = server
        self._batcher = server.app.resolver._store
        self._load = self._batcher._load
        self._gate = Gate()
        self._gate.close()
        self._batcher._load = self.load

    async def load(self, keys: Sequence[Key]) -> Sequence[Snapshot]:
        await self._gate.passing()
        return await self._load(keys)

    def let_go(self) -> None:
        self._batcher._load = self._load
        self._server.loop.call_soon_threadsafe(self._gate.open)


@pytest.fixture
def held(scene: Scene) -> Iterator[Held]:
    held = Held(scene.server)
    yield held
    held.let_go()


def test_redis_answers_and_then_the_local_cache(scene, stub, uncached):
    first = stub.Resolve(pb.ResolveRequest(key=uncached), **scene.caller)
    second = stub.Resolve(pb.ResolveRequest(key=uncached), **scene.caller)

    assert (first.provenance.source, second.provenance.source) == (Source.SOURCE_REDIS, Source.SOURCE_LOCAL)
    assert first.route == second.route
    assert (first.route.url, dict(first.route.labels)) == (URL, {"tier": "gold"})
    assert first.provenance.HasField("age")
    assert first.provenance.epoch == second.provenance.epoch


def test_postgres_answers_who_asks_for_it(scene, stub, uncached):
    exact = stub.Resolve(pb.ResolveRequest(key=uncached, consistency=EXACT), **scene.caller)
    held = stub.Resolve(pb.ResolveRequest(key=uncached), **scene.caller)

    assert (exact.provenance.source, held.provenance.source) == (Source.SOURCE_POSTGRES, Source.SOURCE_LOCAL)
    assert exact.route == held.route


def test_what_is_absent_or_inactive_is_refused_with_its_reason(scene, stub, uncached):
    stub.Deactivate(pb.DeactivateRequest(key=uncached), **scene.caller)
    scene.forget()
    inactive = refused(stub.Resolve, pb.ResolveRequest(key=uncached), **scene.caller)
    assert (inactive.code, inactive.reason) == (Code.NOT_FOUND, "ROUTE_INACTIVE")
    assert inactive.metadata["revision"]

    stub.Delete(pb.DeleteRequest(key=uncached), **scene.caller)
    exact = pb.ResolveRequest(key=uncached, consistency=EXACT)
    asked = scene.caller | {"metadata": [*scene.caller["metadata"], ("x-request-id", "mine")]}
    absent = refused(stub.Resolve, exact, **asked)
    assert (absent.code, absent.reason) == (Code.NOT_FOUND, "ROUTE_NOT_FOUND")
    assert absent.trailers["x-request-id"] == "mine"


def test_a_malformed_key_and_a_stranger_are_refused_before_anything_is_looked_up(scene, stub, uncached):
    broken = RouteKey(tenant="tenant-x", service="-", env="prod", version="v1")
    assert refused(stub.Resolve, pb.ResolveRequest(key=broken), **scene.caller).code is Code.INVALID_ARGUMENT
    others = RouteKey(tenant="others", service="a", env="prod", version="v1")
    assert refused(stub.Resolve, pb.ResolveRequest(key=others), **scene.caller).code is Code.PERMISSION_DENIED
    assert refused(stub.Resolve, pb.ResolveRequest(key=uncached), timeout=30).code is Code.UNAUTHENTICATED


def test_who_waits_no_longer_is_let_go_and_the_load_goes_on(scene, stub, uncached, held):
    exact = pb.ResolveRequest(key=uncached, consistency=EXACT)
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        patient = pool.submit(stub.Resolve, exact, **scene.caller)
        call = stub.Resolve.future(exact, **scene.caller)
        assert eventually(lambda: scene.server.app.grpc_server.admission._open == 2)
        call.cancel()
        hasty = scene.caller | {"timeout": 0.1}
        with pytest.raises(grpc.RpcError) as late:
            stub.Resolve(exact, **hasty)
        assert late.value.code() is Code.DEADLINE_EXCEEDED
        assert eventually(lambda: scene.server.app.grpc_server.admission._open == 1)
        held.let_go()
        assert patient.result(30).route.url == URL
    assert eventually(lambda: scene.server.app.grpc_server.admission._open == 0)


@pytest.mark.parametrize("transport", ["grpcio", "envoy"])
def test_a_stop_waits_for_those_who_wait(engines, database_url, transport):
    chosen = settings(
        transport=transport,
        database_url=database_url,
        redis_url=fresh_redis(engines.urls["REDIS_URL"]),
        drain_seconds=60,
    )
    key = RouteKey(tenant="team-a", service="payments", env="prod", version="v1")
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        with serving(chosen) as server:
            channel = grpc.insecure_channel(server.address, [("grpc.enable_retries", 0)])
            stub = RouteServiceStub(channel)
            stub.Create(pb.CreateRequest(key=key, url=URL), timeout=30)
            held = Held(server)
            call = pool.submit(stub.Resolve, pb.ResolveRequest(key=key, consistency=EXACT), timeout=60)
            assert eventually(lambda: server.app.grpc_server.admission._open == 1)
            threading.Timer(0.2, held.let_go).start()
        assert call.result(30).route.url == URL
        channel.close()
