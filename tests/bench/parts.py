"""The parts of a server that answer from the local cache, without a store, Redis or a transport."""

import time
from collections.abc import Callable, Mapping
from types import SimpleNamespace
from typing import Any, cast

from pointsman.v1.route_service_pb2_grpc import RouteServiceServicer, add_RouteServiceServicer_to_server
from pointsman_server.auth.authenticator import Authenticator, Credentials, limit_of_failures
from pointsman_server.auth.permissions import Permissions, Policy, Rule
from pointsman_server.domain.codec import key_from_message
from pointsman_server.domain.identity import EVERYTHING, Credential, Identity, Pattern
from pointsman_server.domain.routes import Snapshot
from pointsman_server.reads.answer import Answer
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.read_counts import OFF, ReadCounts
from pointsman_server.reads.resolver import Resolver
from pointsman_server.rpc import SERVICE, convert, web
from pointsman_server.rpc.access_log import AccessLog
from pointsman_server.rpc.fastpath.call_ends import CallEnds
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.rpc.fastpath.fast_path import FastPath
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.fastpath.handler import fast_methods
from pointsman_server.rpc.interceptors import authentication, chain
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.interceptors.bulk_limit import Bulk
from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor
from pointsman_server.rpc.interceptors.stage import Stage
from pointsman_server.rpc.methods.write_meter import WriteMeter
from pointsman_server.rpc.route_service import ResolveMeter, RouteServicer
from pointsman_server.rpc.transport.asgi.application import AsgiServer
from pointsman_server.runtime.rate_limiter import Limits
from pointsman_server.telemetry.metrics import Metrics
from tests.bench import noop, requests
from tests.support.receipts import usage_methods
from tests.support.servicers import NO_TRAFFIC

# What a Python client sends, with a token of a usual length.
METADATA = (
    ("user-agent", "grpc-python/1.76.0 grpc-c/51.0.0 (linux; chttp2)"),
    ("authorization", f"Bearer {'a' * 350}.{'b' * 350}.{'c' * 86}"),
)


class Context:
    """Stands for the context of a call."""

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return METADATA

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float | None:
        return 20.0


CONTEXT = Context()


class Parts:
    """One request, and what answers it."""

    def __init__(self) -> None:
        self.request = requests.resolves()[0]
        self.wire = self.request.SerializeToString()
        self.metrics = Metrics()
        self.resolver = self._resolver()
        self.meter = ResolveMeter(self.metrics)
        self.key = key_from_message(self.request.key)
        self.answer = cast("Answer", self.resolver.resolve_locally(self.key))
        self.response = convert.resolve_response(self.answer)
        nothing = (cast("Any", None) for _ in range(6))
        self.servicer = RouteServicer(
            self.resolver,
            *nothing,
            usage=usage_methods(),
            writes=WriteMeter(self.metrics),
            metrics=self.metrics,
            **NO_TRAFFIC,
        )

    def _resolver(self) -> Resolver:
        local = LocalCache(size=1000, ttl=3600, negative_ttl=30)
        nothing = cast("Any", SimpleNamespace(load=None))
        resolver = Resolver(nothing, nothing, local, observer=self.metrics)
        route = noop.route()
        local.put(Snapshot(route.key, route, noop.REVISION), time.monotonic())
        return resolver

    def stages(self, who: Mapping[str, Stage] | None = None) -> dict[str, Stage]:
        """Give each stage its name, outermost first; ``who`` are those that authenticate."""
        who = who or {}
        order = chain.stages(
            self.metrics,
            Admission(),
            access=tuple(who.values()),
            deadline=5,
            access_log_sample=0,
        )
        names = ("count_open", "identify", "measure", "record", "translate", "admit", "limit", *who, "bulk", "validate")
        return dict(zip(names, order, strict=True))

    async def authenticator(self) -> Authenticator:
        """Make one that has seen the token of ``METADATA`` before."""
        authenticator = Authenticator(tokens=AnyToken(), failures=limit_of_failures(20))
        await authenticator.authenticate(Credentials((dict(METADATA)["authorization"],)))
        return authenticator

    async def authenticate(self) -> dict[str, Stage]:
        """Make the stage of authentication."""
        return {"authenticate": authentication.authenticate(await self.authenticator())}

    def fast_path(self, guards: Guards, reads: ReadCounts = OFF) -> Callable[[], object]:
        """Serve the request by the fast path."""
        path = self._fast_path(guards, reads)
        return lambda: path.resolve(self.wire, CONTEXT)

    def _fast_path(self, guards: Guards, reads: ReadCounts) -> FastPath:
        ends = CallEnds(FastPathCounters(self.metrics, SERVICE), AccessLog(0))
        return FastPath(self.resolver._local, self.resolver, guards, ends, epoch=str, deadline=5, reads=reads)

    def interceptor(self, guards: Guards, reads: ReadCounts = OFF) -> Interceptor:
        """Make the chain of a server, with the fast path before it. ``reads`` counts who reads what."""
        return Interceptor(tuple(self.stages().values()), fast_methods(self._fast_path(guards, reads), Bulk()))

    def door(self, interceptor: Interceptor, servicer: RouteServiceServicer | None = None) -> AsgiServer:
        """Make the application that Envoy serves."""
        server = AsgiServer(
            interceptor, message_bytes=4 << 20, metadata_bytes=16 << 10, patience=5, others=web.application()
        )
        add_RouteServiceServicer_to_server(servicer or self.servicer, server)
        return server

    async def guards(self) -> Guards:
        """Make guards with everything on: a token, a policy that lets everybody do everything, and high limits."""
        policy = Policy((Rule("everybody", (EVERYTHING,), (Pattern("*"),)),))
        limits = Limits.make("reads", identity=1e9, tenant=1e9, burst_seconds=1)
        return Guards(Admission(), await self.authenticator(), Permissions(lambda: policy), limits)


class AnyToken:
    """Takes any token: what is measured is what happens once one was verified."""

    version = 1

    async def verify(self, credential: str) -> Identity:
        """Return somebody."""
        del credential
        return Identity("jwt:checkout", Credential.BEARER_TOKEN)
