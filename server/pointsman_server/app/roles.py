"""What a server does in the background for each of its roles: the feed, the relay, the consumers, the heartbeat.

Each function makes its part, starts it, and leaves on ``stack`` what ends it.
"""

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from dataclasses import dataclass, field

from pointsman_server.adapters import kafka
from pointsman_server.app.background import start_task
from pointsman_server.app.dependencies import Dependencies
from pointsman_server.audit.backfill import AuditBackfill
from pointsman_server.config.settings import Settings
from pointsman_server.domain.routes import Change, ChangeKind, RouteKey, Snapshot
from pointsman_server.epochs.guarded_store import WitnessedStream
from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.events.cache_invalidation import CacheHandler
from pointsman_server.events.consumer import Consumer, Handler, SetAside
from pointsman_server.events.feed import Feed
from pointsman_server.events.receipts.receipts import Receipts
from pointsman_server.events.relay import Relay
from pointsman_server.events.watch.history import History, Retention
from pointsman_server.events.watch.hub import WatchHub
from pointsman_server.events.watch.meter import WatchMeter
from pointsman_server.events.watch.snapshots import Snapshots
from pointsman_server.events.watch.streams import WatchStreams
from pointsman_server.ops.staleness_probe import StalenessProbe, beat
from pointsman_server.ports.broker import BrokerUnavailable, ChangeSource, Poison
from pointsman_server.reads.local_cache_updater import LocalCacheUpdater
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.reads.resolver import Resolver
from pointsman_server.reads.usage import UsageRecorder
from pointsman_server.rpc.methods.watch import WatchMethod
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.logs import get_logger
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.tracing import spans
from pointsman_server.telemetry.tracing.spans import Kind
from pointsman_server.writes.group_commit import GroupCommitter
from pointsman_server.writes.request_expiry import forget_old_requests

log = get_logger(__name__)

# Between two questions whether the topic is there.
TOPIC_PAUSE_SECONDS = 0.5
# How long the feed waits for Kafka, at most, before it asks PostgreSQL for changes.
POLL_SECONDS = 0.5
# The lower bound of that: entries that live shorter than three such intervals are loaded again, which costs less.
LEAST_POLL_SECONDS = 0.25


@dataclass(slots=True)
class RunningRoles:
    """What has been started, by ``start_feed`` and the others here; None and nothing before."""

    feed: Feed | None = None
    relay: Relay | None = None
    audit_backfill: AuditBackfill | None = None
    consumers: dict[str, ChangeSource] = field(default_factory=dict)


class Watch:
    """Watch of one server process."""

    def __init__(self, settings: Settings, dependencies: Dependencies, fair_share: FairShare, metrics: Metrics) -> None:
        store = dependencies.store
        meter = WatchMeter(metrics)
        self.hub = WatchHub(fair_share, recent_changes=settings.watch_recent_changes, observer=meter)
        self.snapshots = Snapshots(
            store, fair_share, self.hub.covers, concurrency=settings.watch_snapshots, observer=meter
        )
        retention = Retention(settings.watch_history_changes, settings.watch_history_hours)
        history = History(store, fair_share, retention)
        self.receipts = Receipts(
            self.hub,
            dependencies.watcher_registry,
            dependencies.store.clock,
            lambda: dependencies.epochs.seen,
            server=secrets.token_hex(8),
            reported=metrics.watch_reports.inc,
        )
        self.method = WatchMethod(WatchStreams(self.hub, self.snapshots, history, store, fair_share, meter))

    def start(self, stack: AsyncExitStack, feed: Feed) -> None:
        """Begin to take changes from the feed."""
        self.hub.use(feed)
        start_task(stack, "watch changes", self.hub.send_changes())
        start_task(stack, "watch checkpoints", self.hub.send_checkpoints())
        start_task(stack, "watch requests", self.hub.send_requests())

    def start_receipts(self, stack: AsyncExitStack) -> None:
        """Begin to tell all servers of the watchers of this one."""
        start_task(stack, "watch receipts", self.receipts.run())


class Usage:
    """Counts of who reads which route."""

    def __init__(self, settings: Settings, dependencies: Dependencies, metrics: Metrics) -> None:
        self.counts = ReadCounts(on=settings.usage_hours > 0)
        self.recorder = UsageRecorder(
            self.counts,
            dependencies.usage_log,
            window=settings.usage_hours * 3600,
            dropped=metrics.usage_dropped.inc,
        )

    def start(self, stack: AsyncExitStack) -> None:
        """Begin to give the counts to the log of all servers."""
        if self.recorder.window:
            start_task(stack, "usage", self.recorder.run())


def start_feed(
    stack: AsyncExitStack, settings: Settings, dependencies: Dependencies, cache_updater: LocalCacheUpdater
) -> Feed:
    """Start to keep the local cache up to date with the changes of all servers."""
    stream = None
    if settings.kafka_bootstrap_servers:
        broadcast = kafka.BroadcastConsumer(dependencies.kafka, settings.kafka_topic)
        stream = WitnessedStream(broadcast, dependencies.epochs)
        stack.push_async_callback(stream.close)
    feed = Feed(
        dependencies.store,
        stream,
        poll_seconds=poll_seconds(settings.cache_local_ttl_seconds),
    )
    # First, so that the local cache has each change before another subscriber can pass it on.
    feed.subscribe(cache_updater, local_writes=False)
    start_task(stack, "feed", feed.run())
    return feed


def poll_seconds(local_ttl: float) -> float:
    """Return how long the feed waits for Kafka before it asks PostgreSQL.

    A third of the life of a local entry, so that none expires while the feed confirms it, between the two bounds.
    """
    return min(POLL_SECONDS, max(LEAST_POLL_SECONDS, local_ttl / 3))


def start_relay(stack: AsyncExitStack, settings: Settings, dependencies: Dependencies, metrics: Metrics) -> Relay:
    """Start to publish changes to Kafka, and to delete answers of mutations that are too old to be replayed."""
    for kind in ChangeKind:
        # So that no failure shows as zero.
        metrics.events_failed.labels(kind)
    publisher = kafka.KafkaPublisher(
        dependencies.kafka,
        settings.kafka_topic,
        timeout_seconds=settings.kafka_message_timeout_seconds,
        delivered=lambda kind: metrics.events_published.labels(kind).inc(),
        failed=lambda kind: metrics.events_failed.labels(kind).inc(),
        create_topic=dependencies.topics.has_changes,
    )
    stack.push_async_callback(publisher.close)
    relay = Relay(dependencies.relay_log, publisher, batch=settings.relay_batch)
    start_task(stack, "relay", run_with_topic(dependencies, relay.run))
    request_ids = settings.request_id_ttl_hours * 3600.0
    start_task(stack, "housekeeping", forget_old_requests(dependencies.postgres, request_ids))
    return relay


def start_cache_consumer(
    stack: AsyncExitStack, settings: Settings, dependencies: Dependencies, metrics: Metrics
) -> ChangeSource:
    """Start to invalidate the shared cache by the changes in Kafka."""
    epochs = dependencies.epochs
    handle = CacheHandler(dependencies.cache, lambda: epochs.epoch, renew=dependencies.store.clock)
    return _start_consumer(stack, "cache", handle, settings, dependencies, metrics)


def start_audit_consumer(
    stack: AsyncExitStack, settings: Settings, dependencies: Dependencies, metrics: Metrics
) -> ChangeSource:
    """Start to write the changes in Kafka to the audit log."""
    return _start_consumer(stack, "audit", dependencies.audit_log.append, settings, dependencies, metrics)


def start_audit_backfill(stack: AsyncExitStack, dependencies: Dependencies) -> AuditBackfill:
    """Start to backfill the audit log from the history."""

    async def published() -> int:
        return (await dependencies.relay_log.state()).published

    backfill = AuditBackfill(dependencies.audit_log, dependencies.lineage, dependencies.store, published)
    start_task(stack, "audit backfill", backfill.run())
    return backfill


def start_heartbeat(stack: AsyncExitStack, interval: float, committer: GroupCommitter, relay: Relay) -> None:
    """Start to change the heartbeat route every ``interval`` seconds, while this server's relay is the leader."""
    start_task(stack, "heartbeat", beat(committer, lambda: relay.leader, interval))


def start_staleness_probe(
    stack: AsyncExitStack, dependencies: Dependencies, resolver: Resolver, metrics: Metrics
) -> None:
    """Start to measure by the heartbeat route how stale the local cache and Redis are."""

    async def look_locally(key: RouteKey) -> Snapshot:
        return (await resolver.resolve(key)).snapshot

    async def look_into_redis(key: RouteKey) -> Snapshot | None:
        (lookup,) = await dependencies.cache.get([key], "staleness-probe")
        return lookup.snapshot

    layers = {"local": look_locally, "redis": look_into_redis}
    probe = StalenessProbe(layers, lambda layer, age: metrics.staleness.labels(layer).observe(age))
    start_task(stack, "staleness probe", probe.run())


async def witness_last_changes(settings: Settings, dependencies: Dependencies) -> None:
    """Note the highest revision that Kafka knows: a store that is behind it was restored to an older state.

    Once, at the start: later changes arrive through the feed.
    """
    while True:
        try:
            changes = await kafka.last_changes(dependencies.kafka, settings.kafka_topic)
        except BrokerUnavailable:
            await asyncio.sleep(1)
            continue
        for change in changes:
            dependencies.epochs.witness(change.epoch, change.revision)
        return


def _start_consumer(
    stack: AsyncExitStack,
    name: str,
    handle: Handler,
    settings: Settings,
    dependencies: Dependencies,
    metrics: Metrics,
) -> ChangeSource:
    topic, group = settings.kafka_topic, dependencies.kafka.group(name)
    source = kafka.GroupConsumer(dependencies.kafka, group, topic)
    stack.push_async_callback(source.close)
    letters = kafka.DeadLetters(dependencies.kafka, topic, create_topic=dependencies.topics.has_letters)
    stack.push_async_callback(letters.close)
    counted = count_changes(name, handle, dependencies.epochs, metrics, topic, group)
    consumer = Consumer(name, source, counted, count_poison(name, letters.set_aside, metrics))
    start_task(stack, name, run_with_topic(dependencies, consumer.run))
    return source


def count_changes(
    name: str, handle: Handler, epochs: EpochTracker, metrics: Metrics, topic: str = "", group: str = ""
) -> Handler:
    """Count and trace what ``handle`` does; ``topic`` and ``group`` are for the traces."""
    attributes: dict[str, str | int | float | bool] = {
        "messaging.system": "kafka",
        "messaging.destination.name": topic,
        "messaging.consumer.group.name": group,
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
    }
    done, failures = metrics.consumed.labels(name), metrics.consumer_failures.labels(name)

    async def counted(changes: Sequence[Change]) -> None:
        size: dict[str, str | int | float | bool] = {"messaging.batch.message_count": len(changes)}
        with (
            spans.of_changes(f"process {topic}", Kind.CONSUMER, changes, attributes | size),
            failures.count_exceptions(),
        ):
            await handle(changes)
        for change in changes:
            epochs.witness(change.epoch, change.revision)
        done.inc(len(changes))

    return counted


def count_poison(name: str, set_aside: SetAside, metrics: Metrics) -> SetAside:
    poison = metrics.poison.labels(name)

    async def counted(message: Poison) -> None:
        await set_aside(message)
        poison.inc()

    return counted


async def run_with_topic(dependencies: Dependencies, run: Callable[[], Awaitable[None]]) -> None:
    """Run once Kafka has the topic and the epoch of the store is known, however long that takes."""
    while not await dependencies.topics.ready() or not dependencies.epochs.epoch:  # noqa: ASYNC110 - polls
        await asyncio.sleep(TOPIC_PAUSE_SECONDS)
    await run()
