"""Where the time of one Resolve from the local cache goes: each step alone, in this process, without a transport."""

import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.domain.codec import key_from_message, route_to_message
from pointsman_server.rpc import convert
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.interceptors.stage import CallHandler, Method, Stage
from pointsman_server.runtime import event_loop
from pointsman_server.telemetry import logs
from tests.bench import door_steps
from tests.bench.parts import METADATA, Parts

CALLS = 1000
GOES = 40
WHOLE = "all of it, in one go"
AUTHENTICATED = "all of it, from a caller with a token that was seen before"
FAST = "the fast path, where anybody may call"
GUARDED = "the fast path, with a token, permission and limits"
NOTHING = "nothing"
METHOD = Method("pointsman.v1.RouteService", "Resolve")
Work = Callable[[], Awaitable[object]]


@dataclass(frozen=True, slots=True)
class Context:
    """Stands for the context of a call, of which the stages ask only how long it may take."""

    remaining: float | None

    def time_remaining(self) -> float | None:
        """Seconds that are left."""
        return self.remaining

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        """What the client sent beside the request."""
        return METADATA


def table() -> list[str]:
    """Time it all, and render a Markdown table."""
    logs.configure("info", "json")  # as in production: what is not logged costs little, but not nothing
    return event_loop.run(_table())


async def _table() -> list[str]:
    parts = Parts()
    who = await parts.authenticate()
    steps = dict(_steps(parts, who))
    wholes = {
        WHOLE: partial(_whole, parts, _chain(parts, {})),
        AUTHENTICATED: partial(_whole, parts, _chain(parts, who)),
        FAST: partial(_call, parts.fast_path(Guards(Admission()))),
        GUARDED: partial(_call, parts.fast_path(await parts.guards())),
        **await door_steps.wholes(parts),
    }
    best = await _microseconds(wholes | {NOTHING: partial(_nothing, None, None)} | steps)
    # A stage was timed around a handler that does nothing, anything else as a coroutine: that much less it costs.
    rows = [f"| {name} | {max(0.0, best[name] - best[NOTHING]):.2f} |" for name in steps]
    return ["| step | µs |", "|---|--:|", *rows, *(f"| **{name}** | **{best[name]:.2f}** |" for name in wholes)]


def _steps(parts: Parts, who: Mapping[str, Stage]) -> Iterator[tuple[str, Work]]:
    for name, stage in parts.stages(who).items():
        yield f"stage `{name}`", partial(stage(METHOD, _nothing), parts.request, cast("Any", Context(20.0)))
    limit = parts.stages()["limit"](METHOD, _nothing)
    yield "(stage `limit`, for a caller without a deadline)", partial(limit, parts.request, cast("Any", Context(None)))
    for name, work in [*_plain_steps(parts), *door_steps.steps(parts)]:
        yield name, partial(_call, work)


def _plain_steps(parts: Parts) -> Iterator[tuple[str, Callable[[], Any]]]:
    answer, route = parts.answer, parts.answer.route()
    yield "parse the request", partial(pb.ResolveRequest.FromString, parts.wire)
    yield "make the key", partial(key_from_message, parts.request.key)
    yield "look into the local cache, and count that", partial(parts.resolver.resolve_locally, parts.key)
    yield "count and time the resolving", partial(parts.meter, answer, time.perf_counter())
    yield "build the route of the response", partial(route_to_message, route)
    yield "build the provenance", partial(convert.provenance, answer)
    built, provenance = route_to_message(route), convert.provenance(answer)
    yield "put both into the response", partial(pb.ResolveResponse, route=built, provenance=provenance)
    yield "serialise the response", parts.response.SerializeToString


def _chain(parts: Parts, who: Mapping[str, Stage]) -> CallHandler:
    handler: CallHandler = parts.servicer.Resolve
    for stage in reversed(parts.stages(who).values()):
        handler = stage(METHOD, handler)
    return handler


async def _whole(parts: Parts, handler: CallHandler) -> None:
    response = await handler(pb.ResolveRequest.FromString(parts.wire), cast("Any", Context(20.0)))
    response.SerializeToString()


async def _nothing(request: Any, context: Any) -> None:
    """Stand for what a stage goes on to."""


async def _call(work: Callable[[], Any]) -> None:
    work()


async def _microseconds(works: Mapping[str, Work]) -> dict[str, float]:
    """Take the best of many short goes, in turn: what others do on this machine only ever adds."""
    best = dict.fromkeys(works, float("inf"))
    for name, work in (item for _ in range(GOES) for item in works.items()):
        begun = time.thread_time()
        for _ in range(CALLS):
            await work()
        best[name] = min(best[name], (time.thread_time() - begun) / CALLS * 1e6)
    return best
