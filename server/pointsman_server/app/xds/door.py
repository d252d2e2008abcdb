"""The gRPC port of the role xds: the table behind it, and what every call there passes."""

import asyncio
import time
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

from pointsman.v1 import xds_service_pb2
from pointsman.v1.xds_service_pb2_grpc import add_XdsServiceServicer_to_server
from pointsman_server.app.access import Access
from pointsman_server.app.background import start_task
from pointsman_server.app.grpc_server import bind
from pointsman_server.app.listening import call_limits, connection_limits, most_streams
from pointsman_server.app.xds.caller import GrpcCaller
from pointsman_server.app.xds.services import XdsServicer, client_status_methods, discovery_methods
from pointsman_server.config.settings import Settings
from pointsman_server.events.feed import Feed
from pointsman_server.events.receipts.receipts import Receipts
from pointsman_server.ports.store import RouteStore
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.rpc import CLIENT_STATUS, DISCOVERY, XDS
from pointsman_server.rpc.call import current_call
from pointsman_server.rpc.health import Health
from pointsman_server.rpc.interceptors import authentication
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.interceptors.bulk_limit import Bulk
from pointsman_server.rpc.interceptors.chain import stages
from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor
from pointsman_server.rpc.interceptors.rate_limiting import Throttling
from pointsman_server.rpc.interceptors.telemetry.identification import identify_and_answer
from pointsman_server.rpc.reflection import Reflection
from pointsman_server.rpc.transport import grpcio
from pointsman_server.rpc.transport.registration import register
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.xds.clients.access_review import AccessReview
from pointsman_server.xds.clients.meter import XdsMeter
from pointsman_server.xds.clients.receipts import XdsReceipts
from pointsman_server.xds.clients.registry import Clients
from pointsman_server.xds.clients.survey import Survey
from pointsman_server.xds.clients.usage import XdsUsage
from pointsman_server.xds.clients.xds_service import XdsMethods
from pointsman_server.xds.loader import TableLoader
from pointsman_server.xds.protocol import messages
from pointsman_server.xds.server import DiscoveryServer
from pointsman_server.xds.stream import Stream


@dataclass(frozen=True, slots=True)
class Shared:
    """What all servers know together, by Redis: None where there is none, or where nothing is counted."""

    receipts: Receipts | None = None
    reads: ReadCounts | None = None


class XdsDoor:
    """Serves xDS by grpcio, whatever the transport of RouteService is.

    ``follow`` begins to load the table, ``start`` to listen; streams wait until the table is loaded.
    """

    def __init__(
        self,
        settings: Settings,
        store: RouteStore,
        access: Access,
        metrics: Metrics,
        throttling: Throttling | None,
        fair_share: FairShare,
        shared: Shared,
    ) -> None:
        self._settings = settings
        self._access = access
        self._metrics = metrics
        self._throttling = throttling
        self._fair_share = fair_share
        self._server: Any = None
        self.loader = TableLoader(store, fair_share)
        self.health = Health(DISCOVERY)
        self.clients = Clients(lambda: self.loader.snapshot.clock)
        self._receipts, self._usage = self._make_shared(shared)
        self._survey = Survey(self.clients, lambda: self.loader.snapshot, metrics, fair_share)
        others = (XdsMeter(metrics), self._receipts, self._usage)
        self._observers = (self.clients, *filter(None, others))
        self.admission = Admission(settings.max_concurrent_calls)
        self.port = 0

    def has_loaded(self) -> bool:
        """Return whether there is a table to answer from."""
        return self.loader.has_loaded

    def follow(self, stack: AsyncExitStack, feed: Feed) -> None:
        """Load the table, and keep it up to date by the feed."""
        feed.subscribe(self.loader)
        start_task(stack, "xds table", self.loader.run())
        start_task(stack, "xds survey", self._survey.run())
        if self._receipts:
            start_task(stack, "xds receipts", self._receipts.run())
        if self._usage:
            start_task(stack, "xds usage", self._usage.run())
        if self._access.permissions:
            review = AccessReview(self.clients, self._fair_share, self._access_changed)
            start_task(stack, "xds access", review.run())

    async def start(self) -> None:
        """Listen. Raises ListenError."""
        settings = self._settings
        self._server = grpcio.make_server(
            self._make_interceptor(),
            call_limits(settings),
            share_port=settings.workers > 1,
            connections=connection_limits(settings),
            # A ping, with its answer, would take a quarter of the processor time that a change to all streams takes.
            small_requests=True,
        )
        self._register(self._server)
        self.port = bind(self._server, settings, "xds_listen")
        await self._server.start()

    async def drain(self) -> None:
        """Report NOT_SERVING, end the streams one after another, and stop. Clients keep what they have been sent."""
        await self.health.drain()
        await asyncio.sleep(self._settings.lame_duck_seconds)
        await self.admission.close(self._settings.drain_seconds)
        await asyncio.sleep(grpcio.SETTLE_SECONDS)
        await self._server.stop(grpcio.STOP_GRACE_SECONDS)

    def _register(self, server: Any) -> None:
        loader = self.loader
        discovery = DiscoveryServer(lambda: loader.snapshot, loader.loaded, self._caller, observers=self._observers)
        register(server, DISCOVERY, discovery_methods(discovery))
        register(server, CLIENT_STATUS, client_status_methods(self.clients, self._caller, self._fair_share))
        workers = self._settings.workers
        methods = XdsMethods(self.clients, lambda: loader.snapshot, self._fair_share, workers=workers)
        add_XdsServiceServicer_to_server(XdsServicer(methods, self._caller), server)
        self.health.register(server)
        services = (DISCOVERY, CLIENT_STATUS, XDS)
        Reflection(services, (xds_service_pb2.DESCRIPTOR,), messages.FILES.file).register(server)

    def set_gauges(self) -> None:
        """Set the gauges of the table."""
        metrics, loader = self._metrics, self.loader
        metrics.xds_stream_limit.set(most_streams(self._settings))
        metrics.xds_names.set(loader.snapshot.name_count)
        if loader.has_loaded:
            metrics.xds_routes.set(len(loader.snapshot.table))
            metrics.xds_revision.set(loader.snapshot.clock.revision)
            metrics.xds_age.set(max(0.0, time.monotonic() - loader.confirmed))

    def _make_shared(self, shared: Shared) -> tuple[XdsReceipts | None, XdsUsage | None]:
        receipts, usage, loader = None, None, self.loader
        if shared.receipts:
            receipts = XdsReceipts(self.clients, shared.receipts, lambda: loader.snapshot.clock)
            shared.receipts.ask_also(receipts)
        if shared.reads:
            usage = XdsUsage(self.clients, shared.reads, lambda: loader.snapshot, self._fair_share)
        return receipts, usage

    def _access_changed(self, stream: Stream) -> None:
        if self._receipts:
            self._receipts.register(stream)

    def _caller(self, context: Any) -> GrpcCaller:
        return GrpcCaller(current_call(), context, self._access.permissions)

    def _make_interceptor(self) -> Interceptor:
        settings, access = self._settings, self._access
        return Interceptor(
            stages(
                self._metrics,
                self.admission,
                access=(authentication.authenticate(access.authenticator),) if access.authenticator else (),
                deadline=settings.deadline_seconds,
                access_log_sample=settings.access_log_sample,
                permissions=access.permissions,
                throttling=self._throttling,
                bulk=Bulk(unread_seconds=settings.unread_seconds, fair_share=self._fair_share),
                identify=identify_and_answer,
            )
        )
