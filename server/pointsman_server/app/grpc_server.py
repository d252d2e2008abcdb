"""The gRPC server of a process: stages, limits and certificates from the settings."""

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from pointsman.v1.route_service_pb2_grpc import add_RouteServiceServicer_to_server
from pointsman_server.adapters.redis.quota import RedisQuota
from pointsman_server.app.access import Access
from pointsman_server.config import rules
from pointsman_server.config.names import variable
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import host_and_port, is_loopback
from pointsman_server.ports.quota import SharedQuota
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.resolver import Resolver
from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.access_log import AccessLog
from pointsman_server.rpc.fastpath.call_ends import CallEnds
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.rpc.fastpath.fast_path import FastPath
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.fastpath.handler import RESOLVE, fast_methods
from pointsman_server.rpc.health import Health
from pointsman_server.rpc.interceptors import authentication
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.interceptors.bulk_limit import Bulk
from pointsman_server.rpc.interceptors.chain import stages
from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor
from pointsman_server.rpc.interceptors.rate_limiting import Throttling
from pointsman_server.rpc.reflection import Reflection
from pointsman_server.rpc.route_service import RouteServicer
from pointsman_server.rpc.transport import server as transport
from pointsman_server.rpc.transport import tls
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.runtime.rate_limiter import Limits
from pointsman_server.telemetry.logs import get_logger
from pointsman_server.telemetry.metrics import Metrics

log = get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ReadPath:
    """What the fast path reads from: the local cache, the resolver, and a function that returns the store's epoch."""

    cache: LocalCache
    epoch: Callable[[], str]
    resolver: Resolver


class ListenError(Exception):
    """An address cannot be listened on; the text names it and its variable."""


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
        self.transport = choose_transport(settings)
        self.admission = Admission(settings.max_concurrent_calls)
        self.port = 0

    async def start(self) -> None:
        """Listen, and take calls. Raises ListenError."""
        self._server = server = self._make_server()
        add_RouteServiceServicer_to_server(self._servicer, server)
        self._health.register(server)
        Reflection().register(server)
        report_insecurity(self._settings, self._metrics)
        self.port = self._bind(server)
        await server.start()

    async def drain(self) -> None:
        """Report NOT_SERVING, refuse new calls, wait for open calls, and stop."""
        await self._health.drain()
        await asyncio.sleep(self._settings.lame_duck_seconds)
        await self.admission.close(self._settings.drain_seconds)
        await self._server.stop(None)
        await self._stack.aclose()

    def _make_server(self) -> Any:
        settings, access = self._settings, self._access
        pushback = transport.sends_pushback(self.transport)
        who = (authentication.authenticate(access.authenticator),) if access.authenticator else ()
        throttling = make_throttling(settings, self._make_quota(), self._metrics.limited)
        fast_path = self._make_fast_path(throttling, pushback=pushback)
        bulk = Bulk(unread_seconds=settings.unread_seconds, fair_share=self._fair_share)
        order = stages(
            self._metrics,
            self.admission,
            access=who,
            deadline=settings.deadline_seconds,
            access_log_sample=settings.access_log_sample,
            pushback=pushback,
            permissions=access.permissions,
            throttling=throttling,
            bulk=bulk,
        )
        methods = dict(fast_methods(fast_path, bulk))
        if self.transport == "native":
            # It asks the fast path itself, before it makes a task for the call.
            del methods[RESOLVE]
        return transport.make_server(
            self.transport,
            Interceptor(order, methods),
            transport.CallLimits(settings.max_message_bytes, settings.max_metadata_bytes, settings.max_streams),
            share_port=settings.workers > 1,
            connections=connection_limits(settings),
            fast_path=fast_path,
        )

    def _make_fast_path(self, throttling: Throttling | None, *, pushback: bool) -> FastPath:
        settings, path = self._settings, self._read_path
        limits = throttling.reads if throttling else Limits()
        guards = Guards(self.admission, self._access.authenticator, self._access.permissions, limits)
        ends = CallEnds(self.counters, AccessLog(settings.access_log_sample), pushback=pushback)
        return FastPath(path.cache, path.resolver, guards, ends, epoch=path.epoch, deadline=settings.deadline_seconds)

    def _bind(self, server: Any) -> int:
        settings = self._settings
        try:
            if settings.tls_cert_file and settings.tls_key_file:
                files = tls.Files(settings.tls_cert_file, settings.tls_key_file, settings.tls_client_ca_file)
                from pointsman_server.adapters.files import certificates

                credentials = tls.Certificates(files, certificates.check).credentials()
                return int(server.add_secure_port(settings.listen, credentials))
            return int(server.add_insecure_port(settings.listen))
        except (RuntimeError, OSError) as error:
            raise ListenError(f"cannot listen on {settings.listen} (POINTSMAN_LISTEN): is it taken?") from error

    def _make_quota(self) -> RedisQuota | None:
        settings = self._settings
        if not settings.rate_shared_writes:
            return None
        quota = RedisQuota(
            settings.redis_url.get_secret_value(),
            prefix=settings.redis_prefix,
            timeout=settings.redis_timeout_seconds,
            failed=self._metrics.cache_errors.inc,
        )
        self._stack.push_async_callback(quota.close)
        return quota


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


def choose_transport(settings: Settings) -> transport.Transport:
    """Pick the transport that can do what the settings ask for. Raises TransportUnavailable."""
    lifetimes = bool(settings.connection_idle_seconds or settings.connection_age_seconds)
    exposed = not is_loopback(host_and_port(settings.listen)[0])
    chosen = transport.choose(
        settings.transport, tls=bool(settings.tls_cert_file), lifetimes=lifetimes, exposed=exposed
    )
    if chosen == "native" and exposed:
        log.warning("the native transport does not bound what one request takes: let only a mesh reach it")
    return chosen


def connection_limits(settings: Settings) -> transport.Connections:
    """Say how long connections live, and how they are pinged.

    Client certificates bound the age: one is checked when a connection begins, and may be revoked later.
    """
    ages = [settings.connection_age_seconds, tls.CONNECTION_SECONDS if settings.tls_client_ca_file else 0]
    return transport.Connections(
        keepalive=settings.keepalive_seconds,
        keepalive_timeout=settings.keepalive_timeout_seconds,
        client_ping=settings.client_ping_seconds,
        idle=settings.connection_idle_seconds,
        age=min(filter(None, ages), default=0),
    )
