"""ops.health_checks: which checks each role needs, and in which words each says what is wrong."""

from types import SimpleNamespace
from typing import Any

import pytest

from pointsman_server.config.types import ServerRole
from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.epochs.guarded_store import GuardedStore
from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.ops.health_checks import RELAY_SECONDS, CheckedEngines, HealthChecks, Logs
from pointsman_server.ops.health_monitor import DependencyDown, MustNotServe
from pointsman_server.ports.broker import BrokerUnavailable, RelayState
from pointsman_server.ports.cache import CacheUnavailable
from pointsman_server.ports.store import Clock

API, RELAY, CACHE, AUDIT, _XDS = ServerRole


class FakeDatabase:
    """A database as far as a check speaks of it."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.session_address = f"sessions.{address}"

    def explain(self, error: BaseException) -> str:
        return "is down" if isinstance(error, StoreUnavailable) else "is strange"


class Scene:
    """The checks over engines that each do what ``down`` says."""

    def __init__(
        self, *roles: ServerRole, separate_audit_database: bool = False, replicated: "FakeReplicated | None" = None
    ) -> None:
        self.down: set[str] = set()
        self.clock = Clock("epoch-1", 7)
        self.redis_knows = Clock("epoch-1", 0)
        self.is_read_only = False
        self.relay = RelayState(7, 7, 0.0)
        self.now, self.ahead, self.round_trip = 1000.0, 0.0, 0.0
        self.published: list[Clock] = []
        self.told: list[Clock] = []
        self.reads = 0
        self.epochs = EpochTracker()
        database: Any = FakeDatabase("db:5432")
        audit_database: Any = FakeDatabase("audit:5432") if separate_audit_database else database
        cache: Any = FakeRedis(self)
        kafka: Any = FakeKafka(self)
        store: Any = FakeStore(self)
        logs: Any = Logs(FakeLog(self, "relay"), FakeLog(self, "audit"))  # type: ignore[arg-type]
        self.checks = HealthChecks(
            roles,
            CheckedEngines(database, audit_database, cache, kafka, replicated),  # type: ignore[arg-type]
            logs,
            GuardedStore(store, self.epochs),
            self.epochs,
            read_only=self._read_only,
            on_clock=self.told.append,
            store_time=self._store_time,
            now=lambda: self.now,
        )

    async def _store_time(self) -> float:
        theirs = self.now + self.ahead
        self.now += self.round_trip
        return theirs

    async def _read_only(self) -> bool:
        self.fail_if_down("postgres")
        return self.is_read_only

    def fail_if_down(self, name: str) -> None:
        if name in self.down:
            raise StoreUnavailable

    async def problem(self, name: str) -> str:
        """Run one check, and return what it says is wrong; empty if nothing is."""
        try:
            await self.checks.of_roles()[name]()
        except DependencyDown as error:
            return str(error)
        return ""


class FakeStore:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def clock(self) -> Clock:
        self._scene.fail_if_down("postgres")
        self._scene.reads += 1
        return self._scene.clock


class FakeRedis:
    serving = "Redis Cluster, served by a:1"

    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def ping(self) -> None:
        if "redis" in self._scene.down:
            raise CacheUnavailable("Redis at cache:6379 is loading its data")

    async def publish_clock(self, clock: Clock) -> None:
        self._scene.published.append(clock)
        self._scene.epochs.witness(self._scene.redis_knows.epoch, self._scene.redis_knows.revision)


class FakeKafka:
    def __init__(self, scene: Scene) -> None:
        self._scene = scene

    async def check(self) -> None:
        if "kafka" in self._scene.down:
            raise BrokerUnavailable("Kafka at kafka:9092 does not answer")


class FakeReplicated:
    """Replicas: ``refused`` says why each one is left out. ``down``: the primary cannot compare them."""

    def __init__(self, **refused: str) -> None:
        self.replicas = [SimpleNamespace(address=f"{name}:5432", refused=why) for name, why in refused.items()]
        self.down = False

    async def check(self) -> None:
        if self.down:
            raise StoreUnavailable


class FakeLog:
    def __init__(self, scene: Scene, name: str) -> None:
        self._scene, self._name = scene, name

    async def state(self) -> RelayState:
        self._scene.fail_if_down("postgres")
        return self._scene.relay

    async def check_session(self) -> None:
        self._scene.fail_if_down("session")

    async def ping(self) -> None:
        self._scene.fail_if_down(self._name)


@pytest.mark.parametrize(
    ("roles", "needed"),
    [
        ((), {"postgres"}),
        ((API,), {"postgres", "redis", "writes"}),
        ((RELAY,), {"postgres", "kafka", "relay"}),
        ((CACHE,), {"postgres", "redis", "kafka"}),
        ((AUDIT,), {"postgres", "kafka"}),
        (tuple(ServerRole), {"postgres", "redis", "writes", "kafka", "relay"}),
    ],
)
def test_each_role_needs_its_checks(roles: tuple[ServerRole, ...], needed: set[str]) -> None:
    assert set(Scene(*roles).checks.of_roles()) == needed


@pytest.mark.parametrize("role", ServerRole)
def test_a_database_of_its_own_for_the_audit_log_is_checked_by_the_role_audit_alone(role: ServerRole) -> None:
    checks = Scene(role, separate_audit_database=True).checks.of_roles()
    assert ("audit" in checks) == (role is AUDIT)


async def test_which_redis_serves_is_told() -> None:
    assert await Scene(ServerRole.API).checks.of_roles()["redis"]() == "Redis Cluster, served by a:1"


@pytest.mark.parametrize("role", ServerRole)
def test_replicas_are_checked_by_the_role_api_alone(role: ServerRole) -> None:
    assert ("replicas" in Scene(role, replicated=FakeReplicated()).checks.of_roles()) == (role is API)


async def test_each_replica_that_is_left_out_is_named_and_why() -> None:
    replicated = FakeReplicated(a="", b="lacks 2000 changes", c="is down")
    scene = Scene(API, replicated=replicated)
    assert await scene.problem("replicas") == (
        "the replica at b:5432 lacks 2000 changes; the replica at c:5432 is down: "
        "the others and the primary answer in its place"
    )
    replicated.down = True
    assert await scene.problem("replicas") == "PostgreSQL at db:5432 is down"
    assert await Scene(API, replicated=FakeReplicated(a="", b="")).problem("replicas") == ""


async def test_while_all_are_up_nothing_is_wrong() -> None:
    scene = Scene(*ServerRole, separate_audit_database=True)
    assert {name: await scene.problem(name) for name in scene.checks.of_roles()} == dict.fromkeys(
        ("postgres", "redis", "writes", "kafka", "relay", "audit"), ""
    )


@pytest.mark.parametrize(
    ("name", "down", "problem"),
    [
        ("postgres", "postgres", "PostgreSQL at db:5432 is down"),
        ("writes", "postgres", "PostgreSQL at db:5432 is down"),
        ("relay", "postgres", "PostgreSQL at db:5432 is down"),
        ("relay", "session", "the relay has no session: PostgreSQL at sessions.db:5432 is down"),
        ("audit", "audit", "PostgreSQL for the audit log at audit:5432 is down"),
    ],
)
async def test_what_is_down_is_named_with_its_address(name: str, down: str, problem: str) -> None:
    scene = Scene(*ServerRole, separate_audit_database=True)
    scene.down.add(down)
    assert await scene.problem(name) == problem


@pytest.mark.parametrize(
    ("name", "problem"),
    [("redis", "Redis at cache:6379 is loading its data"), ("kafka", "Kafka at kafka:9092 does not answer")],
)
async def test_what_is_wrong_with_redis_and_kafka_is_said_with_their_address(name: str, problem: str) -> None:
    scene = Scene(*ServerRole)
    scene.down.add(name)
    assert await scene.problem(name) == problem


async def test_a_read_only_database_is_down_for_writes_alone() -> None:
    scene = Scene(API)
    scene.is_read_only = True
    assert await scene.problem("writes") == "PostgreSQL at db:5432 is read-only: reads go on, writes fail"
    assert await scene.problem("postgres") == ""


async def test_each_look_tells_the_clock() -> None:
    scene = Scene(API)
    await scene.problem("postgres")
    scene.clock = Clock("epoch-1", 9)
    await scene.problem("postgres")
    assert scene.told == [Clock("epoch-1", 7), Clock("epoch-1", 9)]
    assert scene.checks.revision == 9


@pytest.mark.parametrize(("role", "asks"), [(API, True), (CACHE, True), (RELAY, False), (AUDIT, False)])
async def test_a_role_that_uses_redis_compares_the_clock_with_it(role: ServerRole, asks: bool) -> None:
    scene = Scene(role)
    await scene.problem("postgres")
    assert scene.published == ([scene.clock] if asks else [])


async def test_redis_that_is_ahead_is_no_proof_until_the_store_is_read_again() -> None:
    scene = Scene(API)
    scene.redis_knows = Clock("epoch-1", 8)
    # The store has caught up by the second read.
    clocks = iter([Clock("epoch-1", 7), Clock("epoch-1", 8)])
    scene.clock = next(clocks)
    publish = scene.checks._engines.cache.publish_clock

    async def publish_and_write(clock: Clock) -> None:
        await publish(clock)
        scene.clock = next(clocks)

    scene.checks._engines.cache.publish_clock = publish_and_write  # type: ignore[method-assign]
    assert await scene.problem("postgres") == ""
    assert scene.reads == 2


async def test_a_store_that_stays_behind_redis_was_restored_and_must_not_serve() -> None:
    scene = Scene(API)
    scene.redis_knows = Clock("epoch-1", 8)
    with pytest.raises(MustNotServe, match=r"restored to an older state .*run `pointsman-server restore`"):
        await scene.checks.of_roles()["postgres"]()

    # It is not compared again: what Redis says of this epoch is known.
    scene.published.clear()
    with pytest.raises(MustNotServe):
        await scene.checks.of_roles()["postgres"]()
    assert scene.published == []


@pytest.mark.parametrize(
    ("relay", "problem"),
    [
        (RelayState(7, 7, 0.0), ""),
        (RelayState(2, 7, RELAY_SECONDS), ""),
        (RelayState(2, 7, RELAY_SECONDS + 0.1), "5 changes wait for Kafka, the oldest for 30 s"),
        (RelayState(7, 7, 1000.0), ""),
    ],
)
async def test_the_relay_is_behind_when_changes_wait_longer_than_30_s(relay: RelayState, problem: str) -> None:
    scene = Scene(RELAY)
    scene.relay = relay
    assert await scene.problem("relay") == problem
    assert scene.checks.relay_state == relay


def test_the_bound_is_30_s() -> None:
    assert RELAY_SECONDS == 30.0


@pytest.mark.parametrize(
    ("ahead", "round_trip", "skew"),
    [(0.0, 0.0, 0.0), (0.3, 0.5, 0.0), (60.0, 0.5, 59.5), (-60.0, 0.5, 60.0)],
    ids=["equal", "within the round trip", "ahead", "behind"],
)
async def test_the_clocks_are_compared_as_far_as_the_round_trip_allows(
    ahead: float, round_trip: float, skew: float
) -> None:
    scene = Scene(API)
    scene.ahead, scene.round_trip = ahead, round_trip
    assert await scene.problem("postgres") == ""
    assert scene.checks.clock_skew == skew
