"""What a server depends on: PostgreSQL, Redis and Kafka through their adapters, and the health checks of all three."""

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Self

from pointsman_server.adapters import kafka
from pointsman_server.adapters.postgres.audit_log import PostgresAuditLog
from pointsman_server.adapters.postgres.bulk_store import PostgresBulkStore
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.history.as_of import PostgresHistory
from pointsman_server.adapters.postgres.lineage import PostgresLineage
from pointsman_server.adapters.postgres.relay_log import PostgresRelayLog
from pointsman_server.adapters.postgres.replicas.store import ReplicatedStore
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.adapters.redis.cache import Lifetimes, RedisCache
from pointsman_server.adapters.redis.deployment import Deployment
from pointsman_server.adapters.redis.usage_log import RedisUsageLog
from pointsman_server.adapters.redis.watcher_registry import RedisWatcherRegistry
from pointsman_server.config.settings import Settings
from pointsman_server.epochs.guarded_store import GuardedBulkStore, GuardedHistory, GuardedStore
from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.ops.health_checks import CheckedEngines, HealthChecks, Logs
from pointsman_server.ops.health_monitor import HealthMonitor
from pointsman_server.ports.store import Clock
from pointsman_server.telemetry.metrics import Metrics


class Dependencies:
    """The adapters, made from settings. Enter to open the connection pools, leave to close everything.

    Nothing is connected before it is used: an engine that is down shows in the health checks, not here.
    ``on_new_epoch`` is called when the store has another epoch than before, ``on_clock`` at each check of PostgreSQL.
    """

    def __init__(
        self,
        settings: Settings,
        metrics: Metrics,
        *,
        on_new_epoch: Callable[[], None] = lambda: None,
        on_clock: Callable[[Clock], None] = lambda _clock: None,
    ) -> None:
        self._metrics = metrics
        self._stack = AsyncExitStack()
        self.database = _make_database(settings, metrics)
        self.audit_database = _make_audit_database(settings, metrics) or self.database
        self.epochs = EpochTracker(switched=on_new_epoch)
        self.postgres = PostgresStore(self.database, queried=self._count_query)
        self.replicated = self._make_replicated(settings, metrics)
        self.store = GuardedStore(self.replicated or self.postgres, self.epochs)
        bulk_store = PostgresBulkStore(self.database, queried=self._count_query)
        self.bulk_store = GuardedBulkStore(bulk_store, self.epochs)
        self.history = GuardedHistory(PostgresHistory(self.database, queried=self._count_query), self.epochs)
        self.relay_log = PostgresRelayLog(self.database)
        self.lineage = PostgresLineage(self.database)
        self.audit_log = PostgresAuditLog(self.audit_database, self.lineage)
        self.cache = _make_cache(settings, metrics, self.epochs)
        redis = redis_deployment(settings)
        self.watcher_registry = RedisWatcherRegistry(
            redis, prefix=settings.redis_prefix, failed=metrics.cache_errors.inc
        )
        self.usage_log = RedisUsageLog(
            redis,
            prefix=settings.redis_prefix,
            window=settings.usage_hours * 3600,
            failed=metrics.cache_errors.inc,
        )
        self.kafka = kafka.cluster_of(settings)
        self.topics = kafka.RequiredTopics(settings, self.kafka)
        self.checks = HealthChecks(
            settings.roles,
            CheckedEngines(
                self.database,
                self.audit_database,
                self.cache,
                kafka.KafkaProbe(self.kafka, kafka.needs_of(settings)),
                self.replicated,
            ),
            Logs(self.relay_log, self.audit_log),
            self.store,
            self.epochs,
            read_only=self.postgres.read_only,
            on_clock=on_clock,
            store_time=self.postgres.time,
        )

    async def __aenter__(self) -> Self:
        async with AsyncExitStack() as stack:
            await self.database.open()
            stack.push_async_callback(self.database.close)
            if self.replicated:
                await self.replicated.open()
                stack.push_async_callback(self.replicated.close)
            if self.audit_database is not self.database:
                await self.audit_database.open()
                stack.push_async_callback(self.audit_database.close)
            for on_redis in (self.cache, self.watcher_registry, self.usage_log):
                stack.push_async_callback(on_redis.close)
            self._stack = stack.pop_all()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._stack.aclose()

    def _make_replicated(self, settings: Settings, metrics: Metrics) -> ReplicatedStore | None:
        """Return None where there are no replicas."""
        urls = settings.database_replica_urls.get_secret_value().split()
        if not urls:
            return None
        return ReplicatedStore(
            self.postgres,
            self.database,
            [_make_replica(settings, url) for url in urls],
            read=lambda source: metrics.store_reads.labels(source).inc(),
            fell_back=lambda reason: metrics.replica_fallbacks.labels(reason).inc(),
        )

    def _count_query(self, name: str) -> None:
        self._metrics.store_queries.labels(name).inc()


def redis_deployment(settings: Settings) -> Deployment:
    """Say how Redis is deployed, and by which files and passwords it is reached."""
    deployment = Deployment.parse(settings.cache_url)
    files = (settings.redis_ca_file, settings.redis_cert_file, settings.redis_key_file)
    ca, certificate, key = (str(path or "") for path in files)
    password = settings.redis_sentinel_password.get_secret_value()
    return deployment.with_files(ca, certificate, key).with_sentinel_credentials(settings.redis_sentinel_user, password)


async def _ignore(_monitor: HealthMonitor) -> None:
    """Do nothing after a check."""


def make_monitor(
    dependencies: Dependencies,
    on_checked: Callable[[HealthMonitor], Awaitable[None]] = _ignore,
    *,
    required: frozenset[str] = frozenset({"postgres"}),
) -> HealthMonitor:
    """Make the monitor of what the roles need. ``on_checked`` is called after each check."""
    return HealthMonitor(
        dependencies.checks.of_roles(),
        required=required,
        # What is cached is served while PostgreSQL is down.
        stand_ins={"postgres": "redis"},
        changed=on_checked,
    )


def _make_database(settings: Settings, metrics: Metrics) -> Database:
    return Database(
        settings.database_url.get_secret_value(),
        session_url=settings.database_session_url.get_secret_value(),
        pool_min=settings.database_pool_min,
        pool_max=settings.database_pool_max,
        timeout=settings.database_timeout_seconds,
        failed=metrics.store_errors.inc,
    )


def _make_replica(settings: Settings, url: str) -> Database:
    return Database(
        url,
        # What stands before the primary stands before its replicas, too.
        pooled=bool(settings.database_session_url),
        pool_min=min(1, settings.database_pool_min),
        pool_max=settings.database_pool_max,
        timeout=settings.database_timeout_seconds,
    )


def _make_audit_database(settings: Settings, metrics: Metrics) -> Database | None:
    """Return None where the audit log is in the database of the routes."""
    url = settings.audit_database_url.get_secret_value()
    if not url:
        return None
    # Two connections: one for the consumer, one for the backfill. Nothing here needs a session.
    timeout = settings.database_timeout_seconds
    return Database(url, pooled=True, pool_min=0, pool_max=2, timeout=timeout, failed=metrics.store_errors.inc)


def _make_cache(settings: Settings, metrics: Metrics, epochs: EpochTracker) -> RedisCache:
    return RedisCache(
        redis_deployment(settings),
        prefix=settings.redis_prefix,
        timeout=settings.redis_timeout_seconds,
        lifetimes=Lifetimes(settings.cache_ttl_seconds, settings.cache_negative_ttl_seconds),
        failed=metrics.cache_errors.inc,
        epoch=lambda: epochs.epoch,
        witness=epochs.witness,
    )
