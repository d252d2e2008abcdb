"""The one place that wires: what a server process consists of, started in order and drained in reverse."""

import asyncio
import json
import os
import signal
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AsyncExitStack
from importlib.metadata import version
from typing import TYPE_CHECKING, Self

from pointsman_server.app import roles, supervisor
from pointsman_server.app.access import Access
from pointsman_server.app.background import start_task
from pointsman_server.app.dependencies import Dependencies, make_monitor
from pointsman_server.app.gauges import set_gauges
from pointsman_server.app.grpc_server import GrpcServer, ReadPath, report_insecurity
from pointsman_server.app.listening import ListenError, certificate_expiry
from pointsman_server.config.names import READY_DESCRIPTOR
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import CALLED, ServerRole, host_and_port
from pointsman_server.domain.routes import Change
from pointsman_server.ops.endpoints import Endpoints
from pointsman_server.ops.health_monitor import HealthMonitor
from pointsman_server.ops.http_server import HttpServer
from pointsman_server.ops.readiness import Readiness
from pointsman_server.ports.store import Clock
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.local_cache_updater import LocalCacheUpdater
from pointsman_server.reads.resolver import Bounds, Resolver
from pointsman_server.reads.revision_tokens import RevisionTokens
from pointsman_server.rpc.health import Health
from pointsman_server.rpc.methods.change_sets import ChangeSetMethods
from pointsman_server.rpc.methods.explain import ExplainMethod
from pointsman_server.rpc.methods.receipts import ReceiptMethods
from pointsman_server.rpc.methods.selection import SelectionMethods
from pointsman_server.rpc.methods.traffic import TrafficMethods
from pointsman_server.rpc.methods.usage import UsageMethods
from pointsman_server.rpc.methods.write_meter import WriteMeter
from pointsman_server.rpc.route_service import RouteServicer
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry import log_level
from pointsman_server.telemetry.log_level import LogLevel
from pointsman_server.telemetry.logs import get_logger
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.telemetry.process import ProcessMeter
from pointsman_server.telemetry.tracing.activation import begin_tracing
from pointsman_server.writes.bulk_import import BulkImporter
from pointsman_server.writes.group_commit import GroupCommitter

if TYPE_CHECKING:
    from pointsman_server.app.xds.door import XdsDoor

log = get_logger(__name__)


class App:
    """One server process: made from settings, entered to start, left to drain."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._stack = AsyncExitStack()
        # Before the parts, which look whether it is on.
        self._end_tracing = begin_tracing(settings)
        self._started = False
        # What drains each gRPC port that is open.
        self._open: list[Callable[[], Awaitable[None]]] = []
        self.http_port = 0

        self.metrics = Metrics()
        self.metrics.workers.set(1)
        for role in ServerRole:
            self.metrics.role.labels(role).set(role in settings.roles)
        self.metrics.build.labels(version("pointsman-server")).set(1)
        if supervisor.was_restarted():
            self.metrics.worker_restarts.inc()
        self.dependencies = Dependencies(
            settings, self.metrics, on_new_epoch=self._forget_epoch, on_clock=self._on_clock
        )
        self.database = self.dependencies.database
        self.store = self.dependencies.store
        self.epochs = self.dependencies.epochs
        self.fair_share = FairShare()
        self.local = _make_local_cache(settings)
        self.resolver = self._make_resolver()
        self.cache_updater = LocalCacheUpdater(self.resolver, self.local)
        cache, resolver = self.dependencies.cache, self.resolver
        self.committer = GroupCommitter(
            self.store,
            cache,
            resolver.apply_local_write,
            self._on_committed,
            supersede=resolver.supersede,
            fair_share=self.fair_share,
        )
        self.importer = BulkImporter(self.dependencies.bulk_store, cache, resolver.supersede, self._on_imported)
        self.access = Access(settings, self.database, self.metrics)
        self.health = Health()
        self.watch = roles.Watch(settings, self.dependencies, self.fair_share, self.metrics)
        self.usage = roles.Usage(settings, self.dependencies, self.metrics)
        self.grpc_server = self._make_grpc_server()
        self.xds = self._make_xds() if ServerRole.XDS in settings.roles else None
        # xDS alone answers from its table in memory, also while PostgreSQL is down.
        needs_store = settings.roles & CALLED != {ServerRole.XDS}
        required = frozenset({"postgres"} if needs_store else ())
        self.monitor = make_monitor(self.dependencies, self._on_checked, required=required)
        self.readiness = self._make_readiness()
        endpoints = Endpoints(self.monitor, self.readiness, self._render_metrics)
        self.http_server = HttpServer(endpoints.application)
        self._certificates = certificate_expiry(settings)
        self.running = roles.RunningRoles()

    async def __aenter__(self) -> Self:
        try:
            await self._start()
        except BaseException:
            await self._stack.aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        self.readiness.draining = True
        log.info("draining", seconds=self.settings.drain_seconds)
        await self._stack.aclose()
        log.info("stopped")

    async def _start(self) -> None:
        if self._end_tracing:
            self._stack.push_async_callback(self._end_tracing)
        await self._stack.enter_async_context(self.dependencies)
        # A mutation is finished even when its caller has gone.
        self._stack.push_async_callback(self.committer.drain)
        await self._listen_http()
        # One round before anything listens, so that a server that says it is ready has checked.
        await self.monitor.round()
        start_task(self._stack, "health monitor", self.monitor.run())
        start_task(self._stack, "process meter", ProcessMeter(self.metrics).run())
        self._start_roles()
        if self.settings.roles & CALLED:
            await self.access.start(self._stack)
            report_insecurity(self.settings, self.metrics)
        start_task(self._stack, "fast path counters", self.grpc_server.counters.run())
        # Last in, so first out: open calls finish while everything that they need still runs.
        self._stack.push_async_callback(self._drain)
        if ServerRole.API in self.settings.roles:
            await self.grpc_server.start()
            self._open.append(self.grpc_server.drain)
        if self.xds:
            await self.xds.start()
            self._open.append(self.xds.drain)
        if self.grpc_server.application is None:
            await self.on_listening(self.grpc_server.port)

    async def _drain(self) -> None:
        """Drain all gRPC ports at once."""
        ended = await asyncio.gather(*(drain() for drain in self._open), return_exceptions=True)
        for error in ended:
            if error is not None:
                raise error

    async def on_listening(self, port: int) -> None:
        """Be ready: gRPC listens on ``port``. Called by who serves ``grpc_server.application``, if there is one."""
        self.grpc_server.port = port
        self._started = True
        await self._on_checked(self.monitor)

    def _start_roles(self) -> None:
        stack, settings, dependencies, running = self._stack, self.settings, self.dependencies, self.running
        if settings.kafka_bootstrap_servers:
            start_task(stack, "tail", roles.witness_last_changes(settings, dependencies))
        if settings.roles & CALLED:
            self._start_feed()
        if ServerRole.RELAY in settings.roles:
            running.relay = roles.start_relay(stack, settings, dependencies, self.metrics)
        if ServerRole.CACHE in settings.roles:
            running.consumers["cache"] = roles.start_cache_consumer(stack, settings, dependencies, self.metrics)
        if ServerRole.AUDIT in settings.roles:
            running.consumers["audit"] = roles.start_audit_consumer(stack, settings, dependencies, self.metrics)
            running.audit_backfill = roles.start_audit_backfill(stack, dependencies)
        if settings.heartbeat_seconds and running.relay:
            roles.start_heartbeat(stack, settings.heartbeat_seconds, self.committer, running.relay)
        if settings.heartbeat_seconds and ServerRole.API in settings.roles:
            roles.start_staleness_probe(stack, dependencies, self.resolver, self.metrics)

    def _start_feed(self) -> None:
        stack = self._stack
        feed = self.running.feed = roles.start_feed(stack, self.settings, self.dependencies, self.cache_updater)
        if self.xds:
            self.xds.follow(stack, feed)
        if ServerRole.API in self.settings.roles:
            self.watch.start(stack, feed)
        if self._shares:
            self.watch.start_receipts(stack)
            self.usage.start(stack)

    @property
    def _shares(self) -> bool:
        """Whether this server tells the others who follows and who reads, which the role xds alone can do without."""
        return ServerRole.API in self.settings.roles or bool(self.settings.redis_url)

    async def _listen_http(self) -> None:
        host, port = host_and_port(self.settings.http_listen)
        try:
            self.http_port = await self.http_server.start(host, port, share=self.settings.workers > 1)
        except OSError as error:
            address = self.settings.http_listen
            raise ListenError(f"cannot listen on {address} (POINTSMAN_HTTP_LISTEN): {error.strerror}") from error
        self._stack.push_async_callback(self.http_server.stop)

    def _make_readiness(self) -> Readiness:
        readiness = Readiness(self.monitor)
        readiness.wait_for("start-up", lambda: self._started)
        if self.settings.roles & CALLED:
            for name, keys in self.access.keys.items():
                readiness.wait_for(name, keys.has_loaded)
        if self.xds:
            readiness.wait_for("table of routes", self.xds.has_loaded)
        return readiness

    def _make_resolver(self) -> Resolver:
        settings = self.settings
        return Resolver(
            self.store,
            self.dependencies.cache,
            self.local,
            observer=self.metrics,
            bounds=Bounds(settings.store_load_batch, settings.store_load_concurrency, settings.store_load_queue),
            join_seconds=settings.cache_local_ttl_seconds,
            fair_share=self.fair_share,
        )

    def _make_grpc_server(self) -> GrpcServer:
        tokens = RevisionTokens(self.epochs, self.store)
        history, permissions = self.dependencies.history, self.access.permissions
        usage, writes = UsageMethods(self.usage.recorder, self.usage.counts, self.store.load), WriteMeter(self.metrics)
        servicer = RouteServicer(
            self.resolver,
            tokens,
            self.committer,
            self.importer,
            self.store,
            self.watch.method,
            ReceiptMethods(self.watch.receipts),
            usage,
            writes,
            SelectionMethods(self.resolver, tokens, history, usage, self.metrics, self.fair_share),
            TrafficMethods(self.committer, self.store, self.resolver, history, writes, self.fair_share),
            ChangeSetMethods(self.committer, self.store, permissions, usage, writes, self.fair_share),
            ExplainMethod(self.store, self.dependencies.cache, self.local, permissions, self.access.api_keys),
            self.metrics,
            history=history,
            fair_share=self.fair_share,
        )
        read_path = ReadPath(self.local, lambda: self.epochs.epoch, self.resolver, self.usage.counts)
        return GrpcServer(self.settings, servicer, read_path, self.access, self.health, self.metrics, self.fair_share)

    def _make_xds(self) -> "XdsDoor":
        # Imported here, because only this role needs it.
        from pointsman_server.app.xds.door import Shared, XdsDoor

        receipts = self.watch.receipts if self._shares else None
        reads = self.usage.counts if self._shares and self.usage.recorder.window else None
        throttling, shared = self.grpc_server.throttling, Shared(receipts, reads)
        return XdsDoor(self.settings, self.store, self.access, self.metrics, throttling, self.fair_share, shared)

    # Callbacks between the parts

    def _on_clock(self, clock: Clock) -> None:
        if self.running.feed:
            self.running.feed.on_clock(clock)

    def _on_committed(self, changes: Sequence[Change]) -> None:
        if self.running.feed:
            self.running.feed.on_committed(changes)

    def _on_imported(self, epoch: str, first: int, last: int) -> None:
        if self.running.feed:
            self.running.feed.on_imported(epoch, first, last)

    def _forget_epoch(self) -> None:
        """Drop what was known of another epoch. Redis keeps it under other names, so it is not read there."""
        self.cache_updater.forget_epoch()
        self._on_clock(self.epochs.seen)

    async def _on_checked(self, monitor: HealthMonitor) -> None:
        can_answer = self.readiness.can_answer
        self.metrics.ready.set(can_answer)
        await self.health.ready(can_answer)
        if self.xds:
            await self.xds.health.ready(not self.readiness.waiting_for)
            self.xds.set_gauges()
        await set_gauges(self.metrics, monitor, self.dependencies, self.running, self._certificates)

    def _render_metrics(self, accept: str) -> tuple[bytes, str]:
        self.grpc_server.counters.flush()
        return self.metrics.render(accept)


async def serve(settings: Settings, level: LogLevel) -> None:
    """Run a server on grpcio until SIGTERM or SIGINT, then drain; another signal switches ``level``.

    Raises ListenError, TransportUnavailable and PolicyError at the start.
    """
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for name in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(name, stop.set)
    log_level.on_signal(loop, level.switch)
    async with App(settings) as app:
        announce(app)
        await stop.wait()


def announce(app: App) -> None:
    """Say where the server listens: in the log, and to the process that started this one, if it asked for that."""
    settings, ports = app.settings, {"grpc_port": app.grpc_server.port, "http_port": app.http_port}
    if app.xds:
        ports["xds_port"] = app.xds.port
    log.info(
        "serving",
        **ports,
        transport=app.grpc_server.choice.transport,
        transport_reason=app.grpc_server.choice.reason,
        roles=sorted(settings.roles),
        ready=app.readiness.ready,
    )
    if descriptor := os.environ.get(READY_DESCRIPTOR):
        with open(int(descriptor), "w") as waiting:  # noqa: PTH123 - a descriptor has no path
            json.dump(ports, waiting)


def _make_local_cache(settings: Settings) -> LocalCache:
    return LocalCache(
        size=settings.cache_local_size,
        ttl=settings.cache_local_ttl_seconds,
        negative_ttl=settings.cache_negative_ttl_seconds,
    )
