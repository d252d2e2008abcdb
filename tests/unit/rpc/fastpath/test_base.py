"""What the fast paths of Resolve and Select do alike, each under its own name."""

from typing import Any, cast

import pytest

from pointsman_server.domain.errors import Overloaded
from pointsman_server.domain.routes import RouteKey
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.access_log import AccessLog
from pointsman_server.rpc.fastpath.base import BasePath
from pointsman_server.rpc.fastpath.call_ends import CallEnds
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.rpc.fastpath.declined import DECLINED, Declined
from pointsman_server.rpc.fastpath.fast_path import FastPath
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.fastpath.select_path import SelectPath
from pointsman_server.rpc.fastpath.terms import Terms
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.telemetry.metrics import Metrics

KEY = RouteKey("acme", "pay", "prod", "v1")


class Context:
    def invocation_metadata(self) -> None:
        return None

    def peer(self) -> str:
        return "ipv4:127.0.0.1:4242"

    def time_remaining(self) -> float:
        return 60.0


class World:
    def __init__(self, kind: type[BasePath], most_calls: int = 10) -> None:
        class Path(BasePath):
            METHOD = kind.METHOD
            BATCH_METHOD = kind.BATCH_METHOD

        self.metrics = Metrics()
        self.counters = FastPathCounters(self.metrics, SERVICE)
        self.admission = Admission(most_calls)
        local = LocalCache(size=10, ttl=10.0, negative_ttl=10.0)
        ends = CallEnds(self.counters, AccessLog(0.0))
        misses = cast("Any", None)
        self.path = Path(
            local, misses, Guards(self.admission), ends, epoch=lambda: "e1", reads=ReadCounts(), now=lambda: 7.0
        )

    def let_wait(self, **terms: Any) -> Any:
        known = Terms(b"")
        for name, value in terms.items():
            setattr(known, name, value)
        return self.path._let_wait(KEY, known, None, Context())

    def started(self, method: str) -> float | None:
        self.counters.flush()
        labels = {"grpc_type": "unary", "grpc_service": SERVICE, "grpc_method": method}
        return self.metrics.registry.get_sample_value("grpc_server_started_total", labels)


@pytest.mark.parametrize("kind", [FastPath, SelectPath])
def test_a_call_that_may_wait_is_counted_at_its_start(kind: type[BasePath]) -> None:
    world = World(kind)
    assert world.let_wait().subject == "anonymous"
    assert world.started(kind.METHOD) == 1
    lookups = {"layer": "local", "outcome": "miss"}
    assert world.metrics.registry.get_sample_value("pointsman_cache_lookups_total", lookups) == 1


@pytest.mark.parametrize("kind", [FastPath, SelectPath])
def test_beyond_the_calls_that_are_admitted_the_chain_refuses_it(kind: type[BasePath]) -> None:
    world = World(kind, most_calls=1)
    world.admission.enter()
    declined = world.let_wait(min_revision=3)
    assert isinstance(declined, Declined)
    assert declined.lookup is not None
    assert (declined.lookup.min_revision, declined.lookup.hits) == (3, (None,))
    assert world.let_wait(from_store=True) is DECLINED
    assert world.started(kind.METHOD) == 0


@pytest.mark.parametrize("kind", [FastPath, SelectPath])
def test_a_batch_that_is_refused_is_counted_as_one(kind: type[BasePath]) -> None:
    world = World(kind)
    refusal = world.path._refuse_batch(Overloaded("bulk"), 0.0, Context())
    assert refusal.code.name == "RESOURCE_EXHAUSTED"
    assert (world.started(kind.METHOD), world.started(kind.BATCH_METHOD)) == (0, 1)


def test_revisions_count_in_the_epoch_of_the_store_alone() -> None:
    path = World(FastPath).path
    assert [path._counts_in(epoch) for epoch in ("", "e1", "e0")] == [True, True, False]
