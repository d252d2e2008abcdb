"""Shared loads and shedding, from outside: a miss costs one load, and what is too much is refused at once.

No time decides: loads wait at a gate, and the other calls are answered while they do.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor

import grpc
import pytest

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from pointsman_server.domain import routes
from pointsman_server.reads.answer import Answer
from tests.support.engines import fresh_database, fresh_redis
from tests.support.fakes import Gate
from tests.support.refusals import read
from tests.support.servers import RunningServer, serving, settings
from tests.support.waiting import eventually

CALLS = 1000
WAVE = 250
CONCURRENCY, BATCH, QUEUE = 2, 5, 1000
DEADLINE = 60
URL = "https://payments.internal:8443"


class HeldStore:
    """Wraps ``store.load``: holds loads at a gate, and counts how many there are at once."""

    def __init__(self, server: RunningServer) -> None:
        self.server = server
        self.gate = Gate()
        self.now = self.most = 0
        self.loads: list[list[routes.RouteKey]] = []
        batcher = server.app.resolver._store
        self._load, batcher._load = batcher._load, self.load

    async def load(self, keys: Sequence[routes.RouteKey]) -> Sequence[routes.Snapshot]:
        self.loads.append(list(keys))
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.passing()
            return await self._load(keys)
        finally:
            self.now -= 1

    def close(self) -> None:
        self.server.loop.call_soon_threadsafe(self.gate.close)

    def open(self) -> None:
        self.server.loop.call_soon_threadsafe(self.gate.open)


class NaiveLoader:
    """What there would be without the remedies: each miss is a load of its own, at once, however many there are."""

    def __init__(self, store: HeldStore) -> None:
        self._store = store

    async def get(self, key: routes.RouteKey) -> routes.Snapshot:
        (snapshot,) = await self._store.load([key])
        return snapshot


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def grpc_server(request: pytest.FixtureRequest, engines, template_database: str) -> Iterator[RunningServer]:
    """A server with small bounds."""
    with fresh_database(template_database) as database_url:
        chosen = settings(
            transport=request.param,
            database_url=database_url,
            redis_url=fresh_redis(engines.urls["REDIS_URL"]),
            redis_timeout_seconds=60,
            deadline_seconds=DEADLINE,
            max_streams=10_000,
            cache_local_ttl_seconds=60,
            store_load_concurrency=CONCURRENCY,
            store_load_batch=BATCH,
            store_load_queue=QUEUE,
        )
        with serving(chosen) as server:
            # When the feed begins, what is being loaded is loaded again.
            assert eventually(lambda: server.app.running.feed._epoch != "")
            yield server


@pytest.fixture
def store(grpc_server: RunningServer) -> Iterator[HeldStore]:
    held = HeldStore(grpc_server)
    yield held
    held.open()
    grpc_server.app.resolver._store._load = held._load


@pytest.fixture
def remedies_off(grpc_server: RunningServer, store: HeldStore, monkeypatch: pytest.MonkeyPatch) -> None:
    resolver = grpc_server.app.resolver
    monkeypatch.setattr(resolver, "_store", NaiveLoader(store))

    async def load_alone(key: routes.RouteKey, *_: object, **__: object) -> Answer:
        return await resolver._start_load(key)

    monkeypatch.setattr(resolver, "load", load_alone)


@pytest.fixture
def stub(grpc_server: RunningServer) -> Iterator[RouteServiceStub]:
    # Without retries, so that a refusal is seen.
    with grpc.insecure_channel(grpc_server.address, [("grpc.enable_retries", 0)]) as channel:
        yield RouteServiceStub(channel)


def queries(server: RunningServer) -> float:
    return server.app.metrics.registry.get_sample_value("pointsman_store_queries_total", {"operation": "load"}) or 0.0


def begin(server: RunningServer, stub: RouteServiceStub, keys: Sequence[RouteKey]) -> list[grpc.Future]:
    """Open a call for each key, and wait until the server has them all.

    In waves: of more than 1000 calls that no handler has taken yet, grpcio itself cancels some, without a reason.
    """
    calls: list[grpc.Future] = []
    for start in range(0, len(keys), WAVE):
        wave = keys[start : start + WAVE]
        calls += [stub.Resolve.future(pb.ResolveRequest(key=key), timeout=DEADLINE) for key in wave]
        assert eventually(lambda: _taken(server, calls) >= len(calls))  # noqa: B023 - called at once
    return calls


def _taken(server: RunningServer, calls: list[grpc.Future]) -> int:
    return server.app.grpc_server.admission._open + sum(call.done() for call in calls)


def test_a_thousand_misses_of_one_key_are_one_load(grpc_server, store, stub, key):
    before = queries(grpc_server)
    store.close()
    calls = begin(grpc_server, stub, [key] * CALLS)
    assert not any(call.done() for call in calls)

    store.open()

    assert all(call.exception().code() is grpc.StatusCode.NOT_FOUND for call in calls)
    assert queries(grpc_server) - before == 1
    assert [list(map(str, load)) for load in store.loads] == [[f"{key.tenant}/payments/prod/v1"]]


def test_different_misses_open_no_more_loads_than_the_bound_and_the_rest_is_refused(
    grpc_server, store, stub, key, request
):
    known = RouteKey(tenant=key.tenant, service="known", env="prod", version="v1")
    stub.Create(pb.CreateRequest(key=known, url=URL))
    held = CONCURRENCY * BATCH + QUEUE
    beyond = 300
    keys = [
        RouteKey(tenant=key.tenant, service="payments", env="prod", version=f"v{number}")
        for number in range(held + beyond)
    ]
    store.close()
    calls = begin(grpc_server, stub, keys)

    # While the loads stand: what is too much is refused, what is cached is answered.
    assert eventually(lambda: sum(call.done() for call in calls) >= beyond)
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: stub.Resolve(pb.ResolveRequest(key=known), timeout=DEADLINE), range(200)))
    assert all(answer.route.url == URL for answer in answers)
    assert store.gate.waiting == store.most == CONCURRENCY

    refused = [call for call in calls if call.done()]
    store.open()
    served = [call for call in calls if call not in refused]
    assert all(call.exception().code() is grpc.StatusCode.NOT_FOUND for call in served)
    assert (store.most, len(served) <= held) == (CONCURRENCY, True)
    for call in refused:
        refusal = read(call.exception())
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "OVERLOADED"), refusal
        assert refusal.metadata["limit"] == "store_loads"
        assert refusal.retry_seconds
        assert "grpc-retry-pushback-ms" in refusal.trailers


@pytest.mark.usefixtures("remedies_off")
def test_without_the_remedies_a_thousand_misses_of_one_key_are_as_many_loads(grpc_server, store, stub, key):
    store.close()
    calls = begin(grpc_server, stub, [key] * CALLS)
    assert eventually(lambda: store.gate.waiting == CALLS)

    store.open()

    assert all(call.exception() for call in calls)
    assert len(store.loads) == CALLS


@pytest.mark.usefixtures("remedies_off")
def test_without_the_remedies_nothing_is_refused_and_loads_have_no_bound(grpc_server, store, stub, key):
    keys = [
        RouteKey(tenant=key.tenant, service="payments", env="prod", version=f"v{number}") for number in range(CALLS)
    ]
    store.close()
    calls = begin(grpc_server, stub, keys)

    assert eventually(lambda: store.most == CALLS)
    assert not any(call.done() for call in calls)

    store.open()
    assert all(call.exception() for call in calls)
