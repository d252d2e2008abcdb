"""The health check of each dependency: it returns, or raises an error that says what is wrong."""

import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass

from pointsman_server.adapters.kafka.probe import KafkaProbe
from pointsman_server.adapters.postgres.audit_log import PostgresAuditLog
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.relay_log import PostgresRelayLog
from pointsman_server.adapters.postgres.replicas.store import ReplicatedStore
from pointsman_server.adapters.redis.cache import RedisCache
from pointsman_server.config.types import ServerRole
from pointsman_server.domain.errors import RetryLater
from pointsman_server.epochs.guarded_store import GuardedStore
from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.ops.health_monitor import DependencyDown, MustNotServe
from pointsman_server.ports.broker import BrokerUnavailable, RelayState
from pointsman_server.ports.cache import CacheUnavailable
from pointsman_server.ports.store import Clock

# Changes that wait for Kafka longer than this make the check fail.
RELAY_SECONDS = 30.0

Check = Callable[[], Awaitable[str | None]]


@dataclass(frozen=True, slots=True)
class CheckedEngines:
    """The dependencies: each check asks one of them to answer."""

    database: Database
    audit_database: Database
    cache: RedisCache
    kafka: KafkaProbe
    replicated: ReplicatedStore | None = None


@dataclass(frozen=True, slots=True)
class Logs:
    """The sources of progress: history, relay and epochs."""

    relay: PostgresRelayLog
    audit: PostgresAuditLog


class HealthChecks:
    """The checks of a server with these ``roles``. ``on_clock`` receives the clock of the store at each check.

    ``revision``, ``relay_state`` and ``clock_skew`` (in seconds) are the results of the last checks. ``now`` is the
    wall clock of this server, and ``store_time`` reads that of the store, both in seconds since 1970.
    """

    def __init__(
        self,
        roles: Collection[ServerRole],
        engines: CheckedEngines,
        logs: Logs,
        store: GuardedStore,
        epochs: EpochTracker,
        *,
        read_only: Callable[[], Awaitable[bool]],
        on_clock: Callable[[Clock], None],
        store_time: Callable[[], Awaitable[float]],
        now: Callable[[], float] = time.time,
    ) -> None:
        self._roles = frozenset(roles)
        self._engines = engines
        self._logs = logs
        self._store = store
        self._epochs = epochs
        self._read_only = read_only
        self._on_clock = on_clock
        self._store_time = store_time
        self._now = now
        self.clock_skew = 0.0
        self.revision = 0
        self.relay_state = RelayState(0, 0, 0.0)

    def of_roles(self) -> Mapping[str, Check]:
        """Name the checks that the roles need."""
        roles, engines = self._roles, self._engines
        needed: dict[str, tuple[Check, bool]] = {
            "postgres": (self._postgres, True),
            "redis": (self._redis, bool(roles & {ServerRole.API, ServerRole.CACHE})),
            "replicas": (self._replicas, ServerRole.API in roles and engines.replicated is not None),
            "writes": (self._writes, ServerRole.API in roles),
            "kafka": (self._kafka, bool(roles & {ServerRole.RELAY, ServerRole.CACHE, ServerRole.AUDIT})),
            "relay": (self._relay, ServerRole.RELAY in roles),
            "audit": (self._audit, ServerRole.AUDIT in roles and engines.audit_database is not engines.database),
        }
        return {name: check for name, (check, is_needed) in needed.items() if is_needed}

    async def _postgres(self) -> None:
        try:
            clock = await self._store.clock()
            self.revision = clock.revision
            self._on_clock(clock)
            await self._compare_clocks()
            await self._compare_with_redis(clock)
        except RetryLater as error:
            raise self._is_down(error) from error
        if self._epochs.lost:
            raise MustNotServe(
                f"PostgreSQL at {self._engines.database.address} was restored to an older state "
                f"({self._epochs.lost}): run `pointsman-server restore`"
            )

    async def _compare_clocks(self) -> None:
        """The time of the store lies between the two of this server: only what is outside of them is skew."""
        before = self._now()
        theirs = await self._store_time()
        after = self._now()
        self.clock_skew = max(0.0, before - theirs, theirs - after)

    async def _compare_with_redis(self, clock: Clock) -> None:
        """Redis may know a higher revision, above all when this server has only just started."""
        if (
            self._epochs.lost
            or clock.epoch != self._epochs.epoch
            or not self._roles & {ServerRole.API, ServerRole.CACHE}
        ):
            return
        await self._engines.cache.publish_clock(clock)
        if self._epochs.seen.revision > clock.revision:
            # Another server may have written in between: only a read that begins now can tell.
            await self._store.clock()

    async def _writes(self) -> None:
        try:
            if await self._read_only():
                address = self._engines.database.address
                raise DependencyDown(f"PostgreSQL at {address} is read-only: reads go on, writes fail")
        except RetryLater as error:
            raise self._is_down(error) from error

    async def _replicas(self) -> None:
        replicated = self._engines.replicated
        if replicated is None:
            return
        try:
            await replicated.check()
        except RetryLater as error:
            raise self._is_down(error) from error
        left_out = [f"the replica at {each.address} {each.refused}" for each in replicated.replicas if each.refused]
        if left_out:
            raise DependencyDown(f"{'; '.join(left_out)}: the others and the primary answer in its place")

    async def _redis(self) -> str:
        try:
            await self._engines.cache.ping()
        except CacheUnavailable as error:
            raise DependencyDown(str(error)) from error
        return self._engines.cache.serving

    async def _kafka(self) -> None:
        try:
            await self._engines.kafka.check()
        except BrokerUnavailable as error:
            raise DependencyDown(str(error)) from error

    async def _relay(self) -> None:
        try:
            self.relay_state = behind = await self._logs.relay.state()
        except RetryLater as error:
            raise self._is_down(error) from error
        await self._relay_session()
        if behind.lag and behind.oldest_seconds > RELAY_SECONDS:
            raise DependencyDown(f"{behind.lag} changes wait for Kafka, the oldest for {behind.oldest_seconds:.0f} s")

    async def _relay_session(self) -> None:
        try:
            await self._logs.relay.check_session()
        except RetryLater as error:
            database = self._engines.database
            where = f"the relay has no session: PostgreSQL at {database.session_address}"
            raise DependencyDown(f"{where} {database.explain(error)}") from error

    async def _audit(self) -> None:
        try:
            await self._logs.audit.ping()
        except RetryLater as error:
            database = self._engines.audit_database
            where = f"PostgreSQL for the audit log at {database.address}"
            raise DependencyDown(f"{where} {database.explain(error)}") from error

    def _is_down(self, error: RetryLater) -> DependencyDown:
        database = self._engines.database
        return DependencyDown(f"PostgreSQL at {database.address} {database.explain(error)}")
