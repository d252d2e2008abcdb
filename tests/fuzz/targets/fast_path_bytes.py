"""Requests as bytes at the fast path: what it serves is valid, and answered as the protos and the rule say.

The first byte says which method is called. Families and routes are held, so most valid requests are answered at once.
"""

import time
from functools import partial
from inspect import iscoroutine
from random import Random
from typing import Any, cast

import atheris
import protovalidate
from google.protobuf.message import DecodeError, Message

from pointsman.v1 import route_pb2, selection_pb2
from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.errors import PointsmanError
from pointsman_server.domain.identity import ANONYMOUS
from pointsman_server.domain.routes import Family, Route, RouteKey, Snapshot, Traffic
from pointsman_server.domain.traffic import Division, Slice, Target
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.resolver import Resolver
from pointsman_server.reads.selection import select
from pointsman_server.rpc import SERVICE
from pointsman_server.rpc.access_log import AccessLog
from pointsman_server.rpc.fastpath.call_ends import CallEnds
from pointsman_server.rpc.fastpath.counters import FastPathCounters
from pointsman_server.rpc.fastpath.declined import Declined
from pointsman_server.rpc.fastpath.fast_path import FastPath
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.telemetry.metrics import Metrics
from tests.fuzz.hostile import fill, unknown_fields
from tests.support.fakes import BIRTH, EPOCH, MemoryCache, MemoryStore

MODULES = ("pointsman_server",)
LONGEST = 4096
AS_OF = 9

DIVIDED, ALONE, AMBIGUOUS, EMPTY = (RouteKey("a", "b", env, "") for env in ("c", "d", "e", "f"))
KEYS = DIVIDED, ALONE, AMBIGUOUS, EMPTY


def _route(key: RouteKey) -> Route:
    return Route(key, f"https://{key.version}.internal", True, {"tier": "gold"}, 3, BIRTH, BIRTH)


def _family(key: RouteKey, *versions: str, traffic: Traffic | None = None) -> Snapshot:
    routes = tuple(_route(key._replace(version=version)) for version in versions)
    return Snapshot(key, Family(key, traffic, routes) if routes else None, AS_OF, EPOCH)


_SLICES = (Slice("v1", 4000), Slice("v2", 4000), Slice("v3", 2000))
_DIVISION = Division(tuple(Target(*piece) for piece in _SLICES), ("v4",))
HELD = {
    snapshot.key: snapshot
    for snapshot in (
        _family(DIVIDED, "v1", "v2", traffic=Traffic(DIVIDED, _DIVISION, _SLICES, 5, BIRTH, BIRTH)),
        _family(ALONE, "v1"),
        _family(AMBIGUOUS, "v1", "v2"),
        _family(EMPTY),
    )
}


class Context:
    """The context of a call."""

    def invocation_metadata(self) -> Any:
        return ()

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float | None:
        return 60.0


class _Open(Guards):
    """Lets everybody in."""

    def let_in(self, *_arguments: Any) -> Any:
        return ANONYMOUS


LOCAL = LocalCache(size=100, ttl=1e9, negative_ttl=1e9)
for _held in (*HELD.values(), Snapshot(_route(RouteKey("a", "b", "c", "v1")).key, None, AS_OF, EPOCH)):
    LOCAL.put(_held, time.monotonic())
_METRICS = Metrics()
PATH = FastPath(
    LOCAL,
    Resolver(MemoryStore(), MemoryCache(), LOCAL, observer=_METRICS),
    _Open(Admission()),
    CallEnds(FastPathCounters(_METRICS, SERVICE), AccessLog(0.0)),
    epoch=lambda: EPOCH,
    deadline=5.0,
)
CONTEXT = cast("Any", Context())
METHODS: tuple[tuple[Any, type[Message], type[Message]], ...] = (
    (PATH.selects.select, pb.SelectRequest, pb.SelectResponse),
    (partial(PATH.selects.batch_select, admit=lambda _: None), pb.BatchSelectRequest, pb.BatchSelectResponse),
    (PATH.resolve, pb.ResolveRequest, pb.ResolveResponse),
    (PATH.batch_resolve, pb.BatchResolveRequest, pb.BatchResolveResponse),
)


def _where(key: RouteKey) -> dict[str, Any]:
    return {"tenant": key.tenant, "service": key.service, "env": key.env}


_ONE = pb.Selection(**_where(DIVIDED), sticky_key="user-1")
GOOD: tuple[tuple[int, Message], ...] = (
    *((0, pb.SelectRequest(**_where(key), sticky_key="user-1")) for key in KEYS),
    (0, pb.SelectRequest(**_where(DIVIDED), min_revision=7, epoch=EPOCH)),
    (0, pb.SelectRequest(**_where(DIVIDED), as_of=route_pb2.AsOf(revision=3))),
    (1, pb.BatchSelectRequest(selections=[_ONE, pb.Selection(**_where(ALONE)), _ONE, pb.Selection(**_where(EMPTY))])),
    (2, pb.ResolveRequest(key=route_pb2.RouteKey(**_where(DIVIDED)))),
    (2, pb.ResolveRequest(key=route_pb2.RouteKey(**_where(DIVIDED), version="v1"))),
    (3, pb.BatchResolveRequest(keys=[route_pb2.RouteKey(**_where(EMPTY))])),
)
SEEDS = tuple(bytes([method]) + message.SerializeToString() for method, message in GOOD)


def check(data: bytes) -> None:
    """Give the fast path a request."""
    serve, kind, response = METHODS[(data[0] if data else 0) % len(METHODS)]
    outcome = serve(data[1:], CONTEXT)
    if isinstance(outcome, Declined):
        return
    # The fast path leaves what is invalid to the chain, also what it would have to wait for.
    request = kind.FromString(data[1:])
    assert not protovalidate.collect_violations(request), "an invalid request is served"
    if iscoroutine(outcome):
        outcome.close()
    elif isinstance(outcome, bytes):
        _judge(request, response.FromString(outcome))
    elif isinstance(request, pb.SelectRequest):
        assert _expected(request) is None, "refused, and could have been chosen from"


def _judge(request: Message, response: Message) -> None:
    if isinstance(request, pb.SelectRequest) and isinstance(response, pb.SelectResponse):
        _judge_one(request, response)
    elif isinstance(request, pb.BatchSelectRequest) and isinstance(response, pb.BatchSelectResponse):
        for one, result in zip(request.selections, response.results, strict=True):
            _judge_one(one, result)


def _judge_one(
    asked: pb.SelectRequest | pb.Selection, found: pb.SelectResponse | pb.BatchSelectResponse.Result
) -> None:
    assert found.provenance.as_of_revision == AS_OF
    expected = _expected(asked)
    if not asked.sticky_key and expected is not None:
        assert found.route.key.version == found.choice.version
        return
    version = expected[0] if expected else ""
    assert found.route.key.version == found.choice.version == version
    assert tuple(found.choice.inactive_versions) == (expected[1] if expected else ())
    rule = selection_pb2.Choice.Rule.Name(found.choice.rule)
    assert rule == (f"RULE_{expected[2]}" if expected else "RULE_UNSPECIFIED")


def _expected(asked: pb.SelectRequest | pb.Selection) -> tuple[str, tuple[str, ...], str] | None:
    try:
        _, choice = select(HELD[RouteKey(asked.tenant, asked.service, asked.env, "")], asked.sticky_key)
    except PointsmanError:
        return None
    return choice.version, choice.inactive_versions, choice.rule.name


def mutate(data: bytes, size: int, seed: int) -> bytes:
    """Change a field of the message, or bytes of it where that is no message."""
    random = Random(seed)
    if random.random() < 0.5:
        return bytes(atheris.Mutate(data, size))
    head = data[:1] or b"\0"
    message = METHODS[head[0] % len(METHODS)][1]()
    try:
        message.MergeFromString(data[1:])
    except DecodeError:
        return bytes(atheris.Mutate(data, size))
    fill(random, message, share=0.2)
    rest = unknown_fields(random) if random.random() < 0.1 else b""
    mutated = head + message.SerializeToString() + rest
    return mutated if len(mutated) <= size else bytes(atheris.Mutate(data, size))
