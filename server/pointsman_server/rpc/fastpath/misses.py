"""The short way of a Resolve that the local cache does not answer: bytes in, bytes out, and no task in between.

The long way makes a task and a context for each call, goes through the stages, and waits. Here a call waits as an
entry of a table, and whoever loads its key (``resolving.Resolver``, which both ways share) tells what came of it.

Whatever is not as usual goes the long way before anything was done for it. What was let in here ends here, whatever
comes of it: the guards have counted it. Its errors are those of the long way, word by word (``refusals``).
"""

import asyncio
import time
from collections.abc import Iterable
from functools import lru_cache, partial
from typing import Any, Protocol, cast

from google.protobuf.message import DecodeError
from grpc import StatusCode

from pointsman.rules import KEY_PART
from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1.route_pb2 import RouteKey as KeyMessage
from pointsman_server.domain.codec import key_from_message, route_to_message
from pointsman_server.domain.errors import PointsmanError
from pointsman_server.domain.identity import Scope
from pointsman_server.domain.routes import RouteKey
from pointsman_server.reads.answer import Answer
from pointsman_server.reads.resolver import Resolver
from pointsman_server.rpc import call as calls
from pointsman_server.rpc import refusal as refusals
from pointsman_server.rpc import statuses
from pointsman_server.rpc.fastpath import wire
from pointsman_server.rpc.fastpath.counters import Waits
from pointsman_server.rpc.fastpath.guards import Guards
from pointsman_server.rpc.refusal import Refusal
from pointsman_server.runtime.batcher import Callback
from pointsman_server.telemetry.logs import get_logger

log = get_logger(__name__)

# What may stand behind the key, and whether it asks the store itself. Everything else is read on the long way.
TERMS = {
    pb.ResolveRequest(consistency=consistency).SerializeToString(): exact
    for consistency, exact in (
        (pb.CONSISTENCY_UNSPECIFIED, False),
        (pb.CONSISTENCY_MINIMIZE_LATENCY, False),
        (pb.CONSISTENCY_FULLY_CONSISTENT, True),
    )
}
# What the encoding of a key has besides the letters: a tag and a length for each part.
FRAMING = 8

# What a call brings: its metadata, from where it comes, and how many seconds its caller waits (None: for ever).
Details = tuple[Iterable[tuple[str, str | bytes]], str, float | None]


class Front(Protocol):
    """What answers calls by their number: the native transport."""

    def respond(self, call_id: int, payload: bytes) -> bool:
        """Answer."""

    def fail(self, call_id: int, code: int, message: str, trailing_metadata: Any = None) -> bool:
        """Refuse."""


class Finder(Protocol):
    """The part of the ``Resolver`` that is asked here."""

    def holds(self, key: RouteKey) -> bool:
        """Say whether the local cache would answer."""

    def ask(self, key: RouteKey, on_result: Callback[Answer]) -> None:
        """Find what is known beyond the local cache."""

    def ask_store(self, key: RouteKey, on_result: Callback[Answer]) -> None:
        """Read the store itself."""


class Waiting:
    """A call that waits for a load. ``due`` is when our own deadline is over, for a caller that set none."""

    __slots__ = ("begun", "call_id", "details", "due", "front")

    def __init__(self, call_id: int, front: Front, details: Details, begun: float, due: float | None) -> None:
        self.call_id = call_id
        self.front = front
        self.details = details
        self.begun = begun
        self.due = due


class ColdAnswers:
    """Takes calls, and answers or refuses each of them later, unless it is cancelled before.

    ``deadline`` in seconds is for callers that set none.
    """

    def __init__(self, resolver: Resolver | Finder, guards: Guards, *, waits: Waits, deadline: float) -> None:
        self._resolver = resolver
        self._admission = guards.admission
        self._let_in = guards.let_in
        self._waits = waits
        self._deadline = deadline
        self._waiting: dict[int, Waiting] = {}
        # Those without a deadline of their own, in the order in which ours ends.
        self._undated: dict[int, Waiting] = {}
        self._timer: asyncio.TimerHandle | None = None

    def take(self, call_id: int, request: bytes, details: Details, front: Front) -> bool:
        """Take a Resolve, or say no: then it goes the long way."""
        begun = time.perf_counter()
        encoded, rest = wire.cut(request)
        exact = TERMS.get(rest)
        if exact is None:
            return False
        key = read_key(encoded)
        if key is None or (not exact and self._resolver.holds(key)) or self._admission.full:
            return False
        if not self._let_in(lambda: details[0], (key.tenant,), (Scope(key.tenant, key.env),)):
            return False
        self._admission.enter()
        self._waits.began(looked=not exact)
        waiting = Waiting(call_id, front, details, begun, self._due(details[2]))
        self._wait(waiting)
        self._ask(key, exact, partial(self._told, waiting))
        return True

    def cancel(self, call_id: int) -> bool:
        """Forget a call whose caller is gone, or waits no longer; says whether it waited here. The load goes on."""
        waiting = self._end(call_id)
        if waiting is None:
            return False
        remaining = waiting.details[2]
        late = remaining is not None and time.perf_counter() - waiting.begun >= remaining
        code = StatusCode.DEADLINE_EXCEEDED if late else StatusCode.CANCELLED
        self._waits.refused(statuses.name_of(code), waiting.begun)
        return True

    def _ask(self, key: RouteKey, exact: bool, on_result: Callback[Answer]) -> None:
        try:
            (self._resolver.ask_store if exact else self._resolver.ask)(key, on_result)
        except Exception as error:  # noqa: BLE001 - the boundary: what arrived together goes on
            on_result(error)

    def _due(self, remaining: float | None) -> float | None:
        if remaining is not None and remaining < calls.FOREVER:
            return None
        return asyncio.get_running_loop().time() + self._deadline

    def _wait(self, waiting: Waiting) -> None:
        self._waiting[waiting.call_id] = waiting
        if waiting.due is not None:
            self._undated[waiting.call_id] = waiting
            if self._timer is None:
                self._timer = asyncio.get_running_loop().call_at(waiting.due, self._expire)

    def _expire(self) -> None:
        """Refuse those for whom our own deadline is over, and look again when it is for the next one."""
        self._timer = None
        loop = asyncio.get_running_loop()
        for waiting in list(self._undated.values()):
            due = cast("float", waiting.due)
            if due > loop.time():
                self._timer = loop.call_at(due, self._expire)
                return
            self._end(waiting.call_id)
            self._refuse(waiting, refusals.of_deadline(self._deadline))

    def _end(self, call_id: int) -> Waiting | None:
        waiting = self._waiting.pop(call_id, None)
        if waiting is not None:
            if waiting.due is not None:
                del self._undated[call_id]
            self._admission.leave()
        return waiting

    def _told(self, waiting: Waiting, outcome: Answer | BaseException) -> None:
        if self._waiting.get(waiting.call_id) is not waiting:
            return  # it was cancelled, or our deadline is over
        self._end(waiting.call_id)
        try:
            if isinstance(outcome, BaseException):
                self._fail(waiting, outcome)
            else:
                self._answer(waiting, outcome)
        except Exception as error:  # noqa: BLE001 - the boundary: whoever tells goes on
            self._refuse(waiting, self._refusal(waiting, error))

    def _answer(self, waiting: Waiting, answer: Answer) -> None:
        try:
            route = answer.route()
        except PointsmanError as error:
            outcome = "absent" if answer.snapshot.route is None else "inactive"
            self._waits.resolved(outcome, answer.source, waiting.begun)
            self._refuse(waiting, self._refusal(waiting, error))
            return
        encoded = answer.encoded or route_to_message(route).SerializeToString()
        waiting.front.respond(waiting.call_id, encode(encoded, answer))
        self._waits.answered(answer.source, waiting.begun)

    def _fail(self, waiting: Waiting, error: BaseException) -> None:
        if isinstance(error, PointsmanError):
            self._waits.failed()
        self._refuse(waiting, self._refusal(waiting, error))

    def _refusal(self, waiting: Waiting, error: BaseException) -> Refusal:
        request_id = calls.Call(cast("calls.Context", _Shown(waiting.details))).request_id
        if isinstance(error, PointsmanError):
            return refusals.of_error(error, request_id, pushback=False)
        if isinstance(error, asyncio.CancelledError):
            return Refusal(StatusCode.CANCELLED, "Cancelled")  # as pygrpc-native says it
        log.error("a bug", request_id=request_id, exc_info=error)
        return refusals.of_bug(request_id)

    def _refuse(self, waiting: Waiting, refusal: Refusal) -> None:
        waiting.front.fail(waiting.call_id, refusal.code.value[0], refusal.text, list(refusal.trailers))
        self._waits.refused(statuses.name_of(refusal.code), waiting.begun)


class _Shown:
    """What ``calls.Call`` asks of the context of a call."""

    def __init__(self, details: Details) -> None:
        self._details = details

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]]:
        return self._details[0]

    def peer(self) -> str:
        return self._details[1]


def read_key(encoded: bytes) -> RouteKey | None:
    """Read a key by the rules of ``route.proto``; None for one that breaks them or has anything else in it."""
    try:
        key = key_from_message(KeyMessage.FromString(encoded))
    except DecodeError:
        return None
    if len(encoded) != FRAMING + sum(map(len, key)) or not all(map(KEY_PART.fullmatch, key)):
        return None
    return key


def encode(route: bytes, answer: Answer) -> bytes:
    """Encode a ResolveResponse around an encoded route."""
    snapshot = answer.snapshot
    as_of = AS_OF + wire.varint(snapshot.as_of) if snapshot.as_of else b""
    provenance = SOURCES[answer.source] + wire.age(int(answer.age * 1000)) + as_of + _epoch(snapshot.epoch)
    return wire.field(1, route) + wire.field(2, provenance)


@lru_cache(16)
def _epoch(epoch: str) -> bytes:
    return pb.Provenance(epoch=epoch).SerializeToString()


SOURCES = {
    name.removeprefix("SOURCE_"): pb.Provenance(source=number).SerializeToString()
    for name, number in pb.Provenance.Source.items()
}
# Field 3, a varint.
AS_OF = pb.Provenance(as_of_revision=1).SerializeToString()[:1]
