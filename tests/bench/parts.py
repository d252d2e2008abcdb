"""The parts of a server that answer from the local cache, without a store, Redis or a transport."""

import time
from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any, cast

from pointsman_server.adapters.local_cache import LocalCache
from pointsman_server.authenticating import Authenticator, Credentials, limit_of_failures
from pointsman_server.encoding import key_from_message
from pointsman_server.identity import Credential, Identity
from pointsman_server.resolving import Answer, Resolver
from pointsman_server.routes import Snapshot
from pointsman_server.rpc import access, convert, interceptors
from pointsman_server.rpc.admission import Admission
from pointsman_server.rpc.servicer import ResolveMeter, RouteServicer
from pointsman_server.rpc.stage import Stage
from pointsman_server.telemetry.metrics import Metrics
from tests.bench import noop, requests

# What a Python client sends, with a token of a usual length.
METADATA = (
    ("user-agent", "grpc-python/1.76.0 grpc-c/51.0.0 (linux; chttp2)"),
    ("authorization", f"Bearer {'a' * 350}.{'b' * 350}.{'c' * 86}"),
)


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

    def stages(self, who: Mapping[str, Stage] | None = None) -> dict[str, Stage]:
        """Give each stage its name, outermost first; ``who`` are those that find out who calls."""
        who = who or {}
        order = interceptors.stages(
            self.metrics,
            Admission(),
            access=tuple(who.values()),
            deadline=5,
            access_log_sample=0,
            pushback=True,
        )
        names = ("count_open", "identify", "measure", "record", "translate", "admit", "limit", *who, "bulk", "validate")
        return dict(zip(names, order, strict=True))

    async def authenticate(self) -> dict[str, Stage]:
        """Make the stage of authentication, which has seen the token of ``METADATA`` before."""
        authenticator = Authenticator(tokens=AnyToken(), failures=limit_of_failures(20))
        await authenticator.authenticate(Credentials((dict(METADATA)["authorization"],)))
        return {"authenticate": access.authenticate(authenticator)}


class AnyToken:
    """Takes any token: what is measured is what happens once one was verified."""

    version = 1

    async def verify(self, credential: str) -> Identity:
        """Return somebody."""
        del credential
        return Identity("jwt:checkout", Credential.BEARER_TOKEN)
