"""The gRPC server of a process: stages, limits and certificates from the settings."""

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack, suppress
from dataclasses import dataclass
from typing import Any

from pointsman.v1.route_service_pb2_grpc import add_RouteServiceServicer_to_server
from pointsman_server.adapters.redis.quota import RedisQuota
from pointsman_server.app.access import Access
from pointsman_server.app.dependencies import redis_deployment
from pointsman_server.app.listening import call_limits, cannot_listen, choose_transport, connection_limits, tls_files
from pointsman_server.config import rules
from pointsman_server.config.names import variable
from pointsman_server.config.settings import Settings
from pointsman_server.ports.quota import SharedQuota
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.reads.resolver import Resolver
from pointsman_server.rpc import SERVICE, web
from pointsman_server.rpc.access_log import AccessLog
from pointsman_server.rpc.fastpath.call_ends import CallEnds
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.rpc.fastpath.fast_path import FastPath
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.fastpath.handler import fast_methods
from pointsman_server.rpc.health import Health
from pointsman_server.rpc.interceptors import authentication
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.interceptors.bulk_limit import Bulk
from pointsman_server.rpc.interceptors.chain import stages
from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor
from pointsman_server.rpc.interceptors.rate_limiting import Throttling
from pointsman_server.rpc.interceptors.telemetry.identification import begin_and_answer, identify, identify_and_answer
from pointsman_server.rpc.reflection import Reflection
from pointsman_server.rpc.route_service import RouteServicer
from pointsman_server.rpc.transport import grpcio, tls
from pointsman_server.rpc.transport.asgi.application import AsgiServer
from pointsman_server.rpc.transport.disconnect import disconnect
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.runtime.rate_limiter import Limits
from pointsman_server.telemetry.logs import get_logger
from pointsman_server.telemetry.metrics import Metrics

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReadPath:
    """What the fast path reads from: the local cache, the resolver, and a function that returns the store's epoch.

    ``reads`` counts who reads what.
    """

    cache: LocalCache
    epoch: Callable[[], str]
    resolver: Resolver
    reads: ReadCounts


async def _nothing() -> None:
    """Do nothing: grpcio itself sends GOAWAY when it stops."""


class GrpcServer:
    """The gRPC server: made from settings, started once everything behind it runs, drained before that ends."""

    def __init__(
        self,
        settings: Settings,
        servicer: RouteServicer,
        read_path: ReadPath,
        access: Access,
        health: Health,
        metrics: Metrics,
        fair_share: FairShare,
    ) -> None:
        self._settings = settings
        self._servicer = servicer
        self._read_path = read_path
        self._access = access
        self._health = health
        self._metrics = metrics
        self._fair_share = fair_share
        self._server: Any = None
        self._stack = AsyncExitStack()
        self.counters = FastPathCounters(metrics, SERVICE)
        # That of every gRPC port of this process.
        self.throttling = make_throttling(settings, self._make_quota(), metrics.limited)
        self.choice = choose_transport(settings)
        # Set by start, where the transport is one that has to be served by another: Envoy.
        self.application: AsgiServer | None = None
        self.send_goaway: Callable[[], Awaitable[None]] = _nothing
        self.flush: Callable[[], Awaitable[None]] = _nothing
        # Another one where the sockets are in another process.
        self.disconnect: Callable[[str], bool] = disconnect
        self.admission = Admission(settings.max_concurrent_calls)
        self.port = 0

    async def start(self) -> None:
        """Take calls: on grpcio listen, and else give ``application`` to who listens. Raises ListenError."""
        interceptor = self._make_interceptor()
        self._metrics.transport.labels(self.choice.transport, self.choice.reason).set(1)
        if self.choice.transport == "envoy":
            self.application = self._make_application(interceptor)
            self._register(self.application)
            return
        settings = self._settings
        self._server = grpcio.make_server(
            interceptor,
            call_limits(settings),
            share_port=settings.workers > 1,
            connections=connection_limits(settings),
        )
        self._register(self._server)
        self.port = bind(self._server, settings, "listen")
        await self._server.start()

    async def drain(self) -> None:
        """Report NOT_SERVING, refuse new calls, wait for open calls, and stop."""
        await self._health.drain()
        await asyncio.sleep(self._settings.lame_duck_seconds)
        await self.send_goaway()
        patience = self._settings.drain_seconds
        give_up = asyncio.get_running_loop().time() + patience
        await self.admission.close(patience)
        with suppress(TimeoutError):
            async with asyncio.timeout_at(give_up):
                await self._write_responses()
        if self._server is not None:
            await self._server.stop(grpcio.STOP_GRACE_SECONDS)
        await self._stack.aclose()

    async def _write_responses(self) -> None:
        """Wait until the responses of the calls that have ended are written."""
        if self.application is None:
            await asyncio.sleep(grpcio.SETTLE_SECONDS)
            return
        await self.application.finished()
        await self.flush()

    def _register(self, server: Any) -> None:
        add_RouteServiceServicer_to_server(self._servicer, server)
        self._health.register(server)
        Reflection().register(server)

    def _make_application(self, interceptor: Interceptor) -> AsgiServer:
        settings = self._settings
        return AsgiServer(
            interceptor,
            message_bytes=settings.max_message_bytes,
            metadata_bytes=settings.max_metadata_bytes,
            patience=settings.deadline_seconds,
            others=web.application(),
        )

    def _make_interceptor(self) -> Interceptor:
        settings, access = self._settings, self._access
        by_envoy = self.choice.transport == "envoy"
        who = (authentication.authenticate(access.authenticator),) if access.authenticator else ()
        throttling = self.throttling
        bulk = Bulk(
            unread_seconds=settings.unread_seconds,
            disconnect=lambda peer: self.disconnect(peer),  # noqa: PLW0108 - it may be replaced
            fair_share=self._fair_share,
        )
        order = stages(
            self._metrics,
            self.admission,
            access=who,
            deadline=settings.deadline_seconds,
            access_log_sample=settings.access_log_sample,
            permissions=access.permissions,
            throttling=throttling,
            bulk=bulk,
            # Envoy itself gives each answer its request id.
            identify=identify if by_envoy else identify_and_answer,
        )
        begin = None if by_envoy else begin_and_answer
        return Interceptor(order, fast_methods(self._make_fast_path(throttling), bulk, begin))

    def _make_fast_path(self, throttling: Throttling | None) -> FastPath:
        settings, path = self._settings, self._read_path
        limits = throttling.reads if throttling else Limits()
        guards = Guards(self.admission, self._access.authenticator, self._access.permissions, limits)
        ends = CallEnds(self.counters, AccessLog(settings.access_log_sample))
        deadline = settings.deadline_seconds
        return FastPath(path.cache, path.resolver, guards, ends, epoch=path.epoch, deadline=deadline, reads=path.reads)

    def _make_quota(self) -> RedisQuota | None:
        settings = self._settings
        if not settings.rate_shared_writes:
            return None
        quota = RedisQuota(
            redis_deployment(settings),
            prefix=settings.redis_prefix,
            timeout=settings.redis_timeout_seconds,
            failed=self._metrics.cache_errors.inc,
        )
        self._stack.push_async_callback(quota.close)
        return quota


def bind(server: Any, settings: Settings, name: str) -> int:
    """Let a server of grpcio listen on the address of the setting ``name``. Returns the port. Raises ListenError."""
    address = getattr(settings, name)
    try:
        if files := tls_files(settings):
            from pointsman_server.adapters.files import certificates

            credentials = tls.Certificates(files, certificates.check).credentials()
            return int(server.add_secure_port(address, credentials))
        return int(server.add_insecure_port(address))
    except (RuntimeError, OSError) as error:
        raise cannot_listen(settings, name) from error


def report_insecurity(settings: Settings, metrics: Metrics) -> None:
    """Say in the metrics, and warn in the log, of each way in which gRPC is insecure beyond this machine."""
    for what, is_so in rules.insecure(settings).items():
        metrics.insecure.labels(what).set(is_so)
        if is_so:
            allowed_by = variable(f"allow_{what}")
            log.warning("listening beyond loopback, insecurely", what=what, allowed_by=allowed_by)


def make_throttling(settings: Settings, quota: SharedQuota | None, limited: Callable[[str], None]) -> Throttling | None:
    """Make the rate limits of the settings; None without any, so that calls pass no stage that does nothing."""
    burst = settings.rate_burst_seconds
    identity, tenant = settings.rate_identity_reads, settings.rate_tenant_reads
    reads = Limits.make("reads", identity=identity, tenant=tenant, burst_seconds=burst)
    identity, tenant = settings.rate_identity_writes, settings.rate_tenant_writes
    writes = Limits.make("writes", identity=identity, tenant=tenant, burst_seconds=burst)
    return Throttling(reads, writes, quota, limited) if reads or writes else None
