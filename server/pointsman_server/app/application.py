"""The one place that wires: what a server process consists of, started in order and drained in reverse."""

import asyncio
import signal
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import AsyncExitStack
from typing import Any, Self

from pointsman_server.adapters import kafka
from pointsman_server.adapters.postgres.audit_log import PostgresAuditLog
from pointsman_server.adapters.postgres.bulk_store import PostgresBulkStore
from pointsman_server.adapters.postgres.database import Database
from pointsman_server.adapters.postgres.lineage import PostgresLineage
from pointsman_server.adapters.postgres.relay_log import PostgresRelayLog
from pointsman_server.adapters.postgres.store import PostgresStore
from pointsman_server.adapters.redis.cache import Lifetimes, RedisCache
from pointsman_server.app.access import Access
from pointsman_server.app.grpc_server import GrpcServer, ListenError, Near
from pointsman_server.audit.backfill import AuditBackfill
from pointsman_server.config.settings import ServerRole, Settings, host_and_port
from pointsman_server.domain.routes import Change, RouteKey, Snapshot
from pointsman_server.epochs.guarded_store import GuardedBulkStore, GuardedStore, WitnessedStream
from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.events.cache_invalidation import CacheHandler
from pointsman_server.events.consumer import Consumer, Handler, SetAside
from pointsman_server.events.feed import Feed
from pointsman_server.events.relay import Relay
from pointsman_server.ops.endpoints import Operations
from pointsman_server.ops.health_checks import Engines, HealthChecks, Logs
from pointsman_server.ops.health_monitor import HealthMonitor
from pointsman_server.ops.staleness_probe import StalenessProbe, beat
from pointsman_server.ports.broker import BrokerUnavailable, Poison
from pointsman_server.ports.store import Clock
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.resolver import Bounds, Resolver
from pointsman_server.reads.revision_tokens import RevisionTokens
from pointsman_server.rpc.health import Health
from pointsman_server.rpc.route_service import RouteServicer
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.logs import get_logger
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.writes.bulk_import import BulkImporter
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.request_expiry import forget_old_requests

log = get_logger(__name__)

# A stop waits for a question to the brokers that is under way.
TOPIC_SECONDS = 3.0
# How long a background task may take to end; the relay lets a batch that is on its way arrive.
CANCEL_SECONDS = 7.0
# How long a server that hears nothing from Kafka goes without asking PostgreSQL for changes.
POLL_SECONDS = 0.5
# Nobody asks more often than this: what is held for less time than three of them is loaded again, which costs less.
LEAST_POLL_SECONDS = 0.25


class App:
    """One server process: made from settings, entered to start, left to drain."""

    def __init__(self, settings: Settings, prepare: "Callable[[App], Awaitable[None]] | None" = None) -> None:
        self.settings = settings
        self._prepare = prepare
        self.metrics = Metrics()
        self._stack = AsyncExitStack()
        self._draining = False
        self.http_port = 0

        self.database = Database(
            settings.database_url.get_secret_value(),
            pool_min=settings.database_pool_min,
            pool_max=settings.database_pool_max,
            timeout=settings.database_timeout_seconds,
            failed=self.metrics.store_errors.inc,
        )
        self.epochs = EpochTracker(switched=self._forget_epoch)
        self.postgres = PostgresStore(self.database, queried=self._count_query)
        self.store = GuardedStore(self.postgres, self.epochs)
        self.relay_log = PostgresRelayLog(self.database)
        self.lineage = PostgresLineage(self.database)
        self.audit_database = self._make_audit_database()
        self.audit_log = PostgresAuditLog(self.audit_database, self.lineage)
        self.audit_keeper: AuditBackfill | None = None
        self.cache = self._make_cache()
        self.local = self._make_local()
        self.fair_share = FairShare()
        self.resolver = self._make_resolver()
        self.committer = GroupCommitter(self.store, self.cache, self.resolver.apply_local_write, self._on_committed)
        bulk = PostgresBulkStore(self.database, queried=self._count_query)
        guarded = GuardedBulkStore(bulk, self.epochs)
        self.importer = BulkImporter(guarded, self.cache, self.resolver.supersede, self._on_committed)
        self.access = Access(settings, self.database, self.metrics)
        self.health = Health()
        self.grpc_server = self._make_front()
        self._cluster = kafka.KafkaCluster(settings.kafka_bootstrap_servers)
        self.checks = self._make_checks()
        self.monitor = HealthMonitor(
            self.checks.of_roles(),
            required=frozenset({"postgres"}),
            # What is cached is served while PostgreSQL is away.
            stand_ins={"postgres": "redis"},
            changed=self._on_checked,
        )
        self.operations = Operations(self.monitor, self._render_metrics, lambda: self._draining)
        self.feed: Feed | None = None
        self.relay: Relay | None = None
        self._sources: dict[str, kafka.GroupConsumer] = {}

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        log.info("draining", seconds=self.settings.drain_seconds)
        await self._stack.aclose()
        log.info("stopped")

    async def _start(self) -> None:
        await self.database.open()
        self._stack.push_async_callback(self.database.close)
        if self.audit_database is not self.database:
            await self.audit_database.open()
            self._stack.push_async_callback(self.audit_database.close)
        self._stack.push_async_callback(self.cache.close)
        # A mutation goes on when its caller does not wait any more.
        self._stack.push_async_callback(self.committer.drain)
        await self._listen_http()
        # One round before anything is announced, so that a server that says it is up has looked.
        await self.monitor.round()
        self._background("monitor", self.monitor.run())
        if self._prepare:
            await self._prepare(self)
        if self.settings.kafka_bootstrap_servers:
            self._background("tail", self._compare_with_kafka())
        self._start_feed()
        self._start_relay()
        self._start_consumers()
        self._start_heartbeat()
        # Last in, so first out: open calls finish while everything they need still runs.
        if ServerRole.API in self.settings.roles:
            await self.access.start(self._background)
            self._background("tally", self.grpc_server.tally.run())
            await self.grpc_server.start()
            self._stack.push_async_callback(self._drain_grpc)

    def _render_metrics(self) -> bytes:
        self.grpc_server.tally.settle()
        return self.metrics.render()

    def _make_front(self) -> GrpcServer:
        tokens = RevisionTokens(self.epochs, self.store)
        servicer = RouteServicer(
            self.resolver, tokens, self.committer, self.importer, self.store, self.metrics, fair_share=self.fair_share
        )
        near = Near(self.local, lambda: self.epochs.epoch, self.resolver)
        return GrpcServer(self.settings, servicer, near, self.access, self.health, self.metrics, self.fair_share)

    async def _drain_grpc(self) -> None:
        self._draining = True
        await self.grpc_server.drain()

    def _count_query(self, name: str) -> None:
        self.metrics.store_queries.labels(name).inc()

    def _make_local(self) -> LocalCache:
        return LocalCache(
            size=self.settings.cache_local_size,
            ttl=self.settings.cache_local_ttl_seconds,
            negative_ttl=self.settings.cache_negative_ttl_seconds,
        )

    def _make_resolver(self) -> Resolver:
        settings = self.settings
        bounds = Bounds(settings.store_load_batch, settings.store_load_concurrency, settings.store_load_queue)
        return Resolver(
            self.store,
            self.cache,
            self.local,
            observer=self.metrics,
            bounds=bounds,
            join_seconds=settings.cache_local_ttl_seconds,
            fair_share=self.fair_share,
        )

    def _make_checks(self) -> HealthChecks:
        return HealthChecks(
            self.settings.roles,
            Engines(self.database, self.audit_database, self.cache, kafka.KafkaProbe(self._cluster)),
            Logs(self.relay_log, self.audit_log),
            self.store,
            self.epochs,
            read_only=self.postgres.read_only,
            on_clock=self._on_clock,
        )

    def _on_clock(self, clock: Clock) -> None:
        if self.feed:
            self.feed.on_clock(clock)

    def _on_committed(self, clock: Clock, changes: int) -> None:
        if self.feed:
            self.feed.on_committed(clock, changes)

    def _make_cache(self) -> RedisCache:
        settings = self.settings
        return RedisCache(
            settings.redis_url.get_secret_value() or "redis://127.0.0.1:6379/0",
            prefix=settings.redis_prefix,
            timeout=settings.redis_timeout_seconds,
            lifetimes=Lifetimes(settings.cache_ttl_seconds, settings.cache_negative_ttl_seconds),
            failed=self.metrics.cache_errors.inc,
            epoch=lambda: self.epochs.epoch,
            witness=self.epochs.witness,
        )

    # Feed, relay and consumers

    def _start_feed(self) -> None:
        if ServerRole.API not in self.settings.roles:
            return
        stream = None
        if self.settings.kafka_bootstrap_servers:
            stream = WitnessedStream(kafka.BroadcastConsumer(self._cluster, self.settings.kafka_topic), self.epochs)
            self._stack.push_async_callback(stream.close)
        self.feed = Feed(
            self.store,
            stream,
            start_over=lambda clock: self.local.start_over(clock.revision),
            apply=lambda change: self.resolver.observe(change.snapshot),
            advance=self.local.advance,
            confirm=self.local.confirm,
            # So often that what is held locally never comes to its end while the feed goes on.
            poll_seconds=min(POLL_SECONDS, max(LEAST_POLL_SECONDS, self.settings.cache_local_ttl_seconds / 3)),
        )
        self._background("feed", self.feed.run())

    def _start_heartbeat(self) -> None:
        interval, relay = self.settings.heartbeat_seconds, self.relay
        if interval and relay:
            self._background("heartbeat", beat(self.committer, lambda: relay.leader, interval))
        if interval and ServerRole.API in self.settings.roles:
            layers = {"local": self._look_locally, "redis": self._look_into_redis}
            probe = StalenessProbe(layers, lambda layer, age: self.metrics.staleness.labels(layer).observe(age))
            self._background("staleness probe", probe.run())

    async def _look_locally(self, key: RouteKey) -> Snapshot:
        return (await self.resolver.resolve(key)).snapshot

    async def _look_into_redis(self, key: RouteKey) -> Snapshot | None:
        (lookup,) = await self.cache.get([key], "staleness-probe")
        return lookup.snapshot

    def _start_relay(self) -> None:
        if ServerRole.RELAY not in self.settings.roles:
            return
        publisher = kafka.KafkaPublisher(
            self._cluster,
            self.settings.kafka_topic,
            timeout_seconds=self.settings.kafka_message_timeout_seconds,
            delivered=lambda kind: self.metrics.events_published.labels(kind).inc(),
            failed=lambda kind: self.metrics.events_failed.labels(kind).inc(),
        )
        self._stack.push_async_callback(publisher.close)
        self.relay = Relay(self.relay_log, publisher, batch=self.settings.relay_batch)
        self._background("relay", self._with_topic(self.relay.run))
        request_ids = self.settings.request_id_ttl_hours * 3600.0
        self._background("housekeeping", forget_old_requests(self.postgres, request_ids))

    def _start_consumers(self) -> None:
        if ServerRole.CACHE in self.settings.roles:
            self._start_consumer("cache", CacheHandler(self.cache, lambda: self.epochs.epoch, renew=self.store.clock))
        if ServerRole.AUDIT in self.settings.roles:
            self._start_consumer("audit", self.audit_log.append)
            self._start_audit_keeper()

    def _start_consumer(self, name: str, handle: Handler) -> None:
        topic = self.settings.kafka_topic
        source = self._sources[name] = kafka.GroupConsumer(self._cluster, f"pointsman-{name}", topic)
        self._stack.push_async_callback(source.close)
        letters = kafka.DeadLetters(self._cluster, topic)
        self._stack.push_async_callback(letters.close)
        consumer = Consumer(name, source, self._counted(name, handle), self._counted_poison(name, letters.set_aside))
        self._background(name, self._with_topic(consumer.run))

    def _start_audit_keeper(self) -> None:
        async def published() -> int:
            return (await self.relay_log.state()).published

        self.audit_keeper = AuditBackfill(self.audit_log, self.lineage, self.store, published)
        self._background("audit keeper", self.audit_keeper.run())

    def _make_audit_database(self) -> Database:
        url = self.settings.audit_database_url.get_secret_value()
        if not url:
            return self.database
        # One consumer and one keeper are all that use it.
        timeout = self.settings.database_timeout_seconds
        return Database(url, pool_min=0, pool_max=2, timeout=timeout, failed=self.metrics.store_errors.inc)

    def _counted(self, name: str, handle: Handler) -> Handler:
        done, failures = self.metrics.consumed.labels(name), self.metrics.consumer_failures.labels(name)

        async def counted(changes: Sequence[Change]) -> None:
            with failures.count_exceptions():
                await handle(changes)
            for change in changes:
                self.epochs.witness(change.epoch, change.revision)
            done.inc(len(changes))

        return counted

    def _counted_poison(self, name: str, set_aside: SetAside) -> SetAside:
        poison = self.metrics.poison.labels(name)

        async def counted(message: Poison) -> None:
            await set_aside(message)
            poison.inc()

        return counted

    async def _with_topic(self, run: Callable[[], Awaitable[None]]) -> None:
        """Run once the topic and the epoch of the store are there, however long broker and store take to come."""
        settings = self.settings
        while not await self._topic_is_there(settings) or not self.epochs.epoch:  # noqa: ASYNC110 - polls the broker
            await asyncio.sleep(0.5)
        await run()

    async def _topic_is_there(self, settings: Settings) -> bool:
        topic, replicas = settings.kafka_topic, settings.kafka_replication_factor
        try:
            warning = await kafka.ensure_topic(self._cluster, topic, settings.kafka_partitions, replicas, TOPIC_SECONDS)
            await kafka.ensure_topic(self._cluster, kafka.dead_letter_topic(topic), 1, replicas, TOPIC_SECONDS)
        except BrokerUnavailable:
            return False
        if warning:
            log.warning(warning)
        return True

    def _background(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(_tell_if_broken)
        self._stack.push_async_callback(end, task)

    # Operations

    async def _listen_http(self) -> None:
        host, port = host_and_port(self.settings.http_listen)
        try:
            self.http_port = await self.operations.start(host, port, share=self.settings.workers > 1)
        except OSError as error:
            address = self.settings.http_listen
            raise ListenError(f"cannot listen on {address} (POINTSMAN_HTTP_LISTEN): {error.strerror}") from error
        self._stack.push_async_callback(self.operations.stop)

    async def _compare_with_kafka(self) -> None:
        """Kafka may know a higher revision too; the next read of the clock tells. Once: then the feed hears of more."""
        while True:
            try:
                changes = await kafka.last_changes(self._cluster, self.settings.kafka_topic)
            except BrokerUnavailable:
                await asyncio.sleep(1)
                continue
            for change in changes:
                self.epochs.witness(change.epoch, change.revision)
            return

    def _forget_epoch(self) -> None:
        """Drop what was known of another epoch. What Redis holds of it is under other names."""
        self.resolver.forget()
        self.local.start_over(0)
        if self.feed:
            self.feed.on_clock(self.epochs.seen)

    async def _on_checked(self, monitor: HealthMonitor) -> None:
        await self.health.ready(monitor.ready)
        self.metrics.ready.set(monitor.ready)
        for state in monitor.states.values():
            self.metrics.up.labels(state.name).set(state.up)
        self.metrics.pool(self.database.stats)
        for name, source in self._sources.items():
            self.metrics.consumer_lag.labels(name).set(await source.lag())
        if self.feed:
            self.metrics.feed_revision.set(self.feed.revision)
            self.metrics.feed_lag.set(max(0, self.checks.revision - self.feed.revision))
            self.metrics.feed_connected.set(self.feed.connected)
        if self.audit_keeper:
            self.metrics.audit_chain.set(self.audit_keeper.chained)
        if self.relay:
            self.metrics.relay_leader.set(self.relay.leader)
            self.metrics.relay_lag.set(self.checks.relay_state.lag)
            self.metrics.relay_lag_seconds.set(self.checks.relay_state.oldest_seconds)


async def end(task: asyncio.Task[None], patience: float = CANCEL_SECONDS) -> None:
    """Cancel a task until it has ended.

    ``asyncio.wait_for``, which psycopg_pool waits by, loses a cancellation that comes in the moment in which what it
    waits for is there (bugs.python.org/issue37658, mended in Python 3.12). ``patience`` is longer than the grace that
    any task takes for itself.
    """
    while not task.done():
        task.cancel()
        await asyncio.wait([task], timeout=patience)


def _tell_if_broken(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and task.exception():
        log.error("a background task ended", task=task.get_name(), exc_info=task.exception())


async def serve(
    settings: Settings,
    announce: Callable[[App], None],
    prepare: Callable[[App], Awaitable[None]] | None = None,
) -> None:
    """Run a server until SIGTERM or SIGINT, then drain.

    Raises ListenError, TransportUnavailable and PolicyError at start.

    ``prepare`` runs before the relay and the consumers start, ``announce`` once everything runs.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    async with App(settings, prepare) as app:
        announce(app)
        await stop.wait()


def log_address(app: App) -> None:
    """Say in the log where the server listens."""
    settings = app.settings
    log.info(
        "serving",
        grpc_port=app.grpc_server.port,
        http_port=app.http_port,
        transport=app.grpc_server.transport,
        roles=sorted(settings.roles),
        ready=app.monitor.ready,
    )
