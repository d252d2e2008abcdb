"""The parts of a server that answer from the local cache, without a store, Redis or a transport."""

import time
from types import SimpleNamespace
from typing import Any, cast

from pointsman_server.adapters.local_cache import LocalCache
from pointsman_server.encoding import key_from_message
from pointsman_server.resolving import Answer, Resolver
from pointsman_server.routes import Snapshot
from pointsman_server.rpc import convert, interceptors
from pointsman_server.rpc.servicer import ResolveMeter, RouteServicer
from pointsman_server.rpc.stage import Stage
from pointsman_server.telemetry.metrics import Metrics
from tests.bench import noop, requests


class Parts:
    """One request, and what answers it."""

    def __init__(self) -> None:
        self.request = requests.resolves()[0]
        self.wire = self.request.SerializeToString()
        self.metrics = Metrics()
        self.resolver = self._resolver()
        self.meter = ResolveMeter(self.metrics)
        self.key = key_from_message(self.request.key)
        self.answer = cast("Answer", self.resolver.near(self.key))
        self.response = convert.resolve_response(self.answer)
        self.servicer = RouteServicer(
            self.resolver, cast("Any", None), cast("Any", None), cast("Any", None), self.metrics
        )

    def _resolver(self) -> Resolver:
        local = LocalCache(size=1000, ttl=3600, negative_ttl=30)
        nothing = cast("Any", SimpleNamespace(load=None))
        resolver = Resolver(nothing, nothing, local, observer=self.metrics)
        route = noop.route()
        local.put(Snapshot(route.key, route, noop.REVISION), time.monotonic())
        return resolver

    def stages(self) -> dict[str, Stage]:
        """Give each stage its name, outermost first."""
        order = interceptors.stages(self.metrics, deadline=5, access_log_sample=0, pushback=True)
        return dict(zip(("identify", "measure", "record", "translate", "limit", "validate"), order, strict=True))
