"""Calls of RouteService without a network: request bytes pass the interceptor chain and the service, down to fakes.

The rules for the end of a call, of any method, are checked here.
"""

import asyncio
import atexit
import re
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, fields, is_dataclass
from typing import Any, cast

import grpc
from google.protobuf.message import DecodeError, Message
from google.rpc import status_pb2

from pointsman.rules import KEY_PART, url_problem
from pointsman.v1 import error_reason_pb2
from pointsman.v1.route_service_pb2_grpc import add_RouteServiceServicer_to_server
from pointsman_server.auth.permissions import Permissions, Policy
from pointsman_server.domain.errors import Overloaded, PointsmanError, StoreUnavailable
from pointsman_server.domain.identity import Credential
from pointsman_server.domain.routes import Change, ChangeKind, Draft, Route, RouteKey, Snapshot, Traffic, Wanted
from pointsman_server.epochs.tracker import EpochTracker
from pointsman_server.ports.bulk_store import Merged
from pointsman_server.ports.store import (
    ChangeQuery,
    Clock,
    Intent,
    LockedState,
    MutationScope,
    Outcome,
    RouteQuery,
    StoredOutcome,
    TrafficQuery,
)
from pointsman_server.reads.local_cache import LocalCache
from pointsman_server.reads.resolver import Resolver
from pointsman_server.reads.revision_tokens import RevisionTokens
from pointsman_server.rpc import SERVICE, statuses
from pointsman_server.rpc.interceptors.admission import Admission
from pointsman_server.rpc.interceptors.authentication import authenticate
from pointsman_server.rpc.interceptors.chain import stages
from pointsman_server.rpc.interceptors.grpc_interceptor import Interceptor
from pointsman_server.rpc.methods.change_sets import ChangeSetMethods
from pointsman_server.rpc.methods.explain import ExplainMethod
from pointsman_server.rpc.methods.selection import SelectionMethods
from pointsman_server.rpc.methods.traffic import TrafficMethods
from pointsman_server.rpc.methods.write_meter import WriteMeter
from pointsman_server.rpc.route_service import RouteServicer
from pointsman_server.runtime.fair_share import FairShare
from pointsman_server.telemetry.metrics import Metrics
from pointsman_server.writes.bulk_import import BulkImporter
from pointsman_server.writes.group_commit import GroupCommitter
from tests.fuzz.callers import PROBLEMS, authenticator, kept, key_text, key_verifier
from tests.fuzz.hostile import CANARY
from tests.support.bulk_fakes import MemoryBulkStore, MemoryImport
from tests.support.fakes import BIRTH, EPOCH, MemoryCache, MemoryStore
from tests.support.history import MemoryHistory
from tests.support.receipts import receipt_methods, usage_methods
from tests.support.refusals import read_status
from tests.support.watches import watch_method

Metadata = Sequence[tuple[str, str | bytes]]

ALLOWED = frozenset(statuses.CODES.values()) - {grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN}
REASONS = frozenset(name.removeprefix("ERROR_REASON_") for name, _number in error_reason_pb2.ErrorReason.items())
MALFORMED = ": the request is not a valid protobuf message of this method"
MISSING_URL = "url: is required to create the route, which does not exist"
# Texts of Python, parsers and drivers, which no caller may see.
LEAK = re.compile(
    r"traceback|exception|\w+error\b|\bfile \"|\.py\b|line \d|\bat 0x|/(home|usr|work|tmp|opt)/"
    r"|protobuf_|upb|utf-8|decod|codec|parsing|wire type|none\b|psycopg|redis",
    re.IGNORECASE,
)

LIVE, IDLE = RouteKey("a", "b", "c", "live"), RouteKey("a", "b", "c", "idle")
# Only the history says what it changes, so it is read before the permission and the revision are judged.
BY_HISTORY = "Revert"
FAILURES: tuple[PointsmanError | None, ...] = (None, None, None, None, StoreUnavailable(), Overloaded("store_loads"))


KEYS = {
    "everybody's": kept(0, "admin:*"),
    "a reader of a": kept(1, "reader:a"),
    "a writer of c": kept(2, "writer:*:c"),
    "nobody": kept(3),
}
"""API keys of a guarded rig, by their holders."""
CALLERS: Mapping[str, Metadata] = {
    **{who: (("authorization", f"Bearer {key_text(number)[1]}"),) for number, who in enumerate(KEYS)},
    "no credential": (),
    "two of them": (("authorization", f"Bearer {key_text(0)[1]}"),) * 2,
    "a forgery": (("authorization", f"Bearer {key_text(4)[1]}{CANARY}"),),
    "bytes": (("authorization", b"Bearer \xff"),),
    "another scheme": (("authorization", f"Basic {CANARY}"),),
}


class Context:
    """The context of a call. Records how the call ends."""

    def __init__(self, metadata: Metadata, remaining: float | None) -> None:
        self.trailers: Metadata = ()
        self.status: tuple[grpc.StatusCode, str] | None = None
        self._metadata = metadata
        self._remaining = remaining
        self._when_over: list[Callable[[object], None]] = []

    def invocation_metadata(self) -> Metadata:
        return self._metadata

    def set_trailing_metadata(self, trailers: Metadata) -> None:
        self.trailers = trailers

    def time_remaining(self) -> float | None:
        return self._remaining

    def add_done_callback(self, callback: Callable[[object], None]) -> None:
        self._when_over.append(callback)

    def end(self) -> None:
        """Call the done callbacks, as when the response has been sent."""
        for callback in self._when_over:
            callback(self)

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def auth_context(self) -> Mapping[str, Sequence[bytes]]:
        return {}

    def code(self) -> grpc.StatusCode | None:
        return self.status[0] if self.status else None

    async def abort(self, code: grpc.StatusCode, details: str = "", trailers: Metadata = ()) -> None:
        self.status = code, details
        self.trailers = trailers or self.trailers
        raise grpc.aio.AbortError


def made(route: Route) -> Change:
    """Return the change that created a route of the first state: they are one change set."""
    event, when = f"event-{route.revision}", route.create_time
    return Change(
        route.revision,
        event,
        ChangeKind.CREATED,
        route.key,
        None,
        route,
        "ann",
        "",
        "",
        when,
        EPOCH,
        change_set_end=2,
        change_set_id=1,
        change_set_size=2,
    )


class WatchedStore(MemoryStore):
    """Records everything that reaches it."""

    def __init__(self) -> None:
        super().__init__()
        self.reached: list[object] = []

    def start_over(self) -> None:
        """Restore the first state: one active route, one inactive one, their history, and one stored outcome."""
        self.routes = {
            key: Route(key, f"https://{key.version}.internal", key is LIVE, {"tier": "gold"}, number, BIRTH, BIRTH)
            for number, key in enumerate((LIVE, IDLE), 1)
        }
        self.traffic = {}
        self.requests = {("a", "used"): StoredOutcome("a", "used", b"of another request", Outcome(None, 1))}
        self.changes = [made(route) for route in self.routes.values()]
        self.revision, self.failure = 2, None
        self.loads.clear()
        self.journal.clear()
        self.reached.clear()

    async def load(self, keys: Sequence[RouteKey]) -> list[Snapshot]:
        self.reached += keys
        return await super().load(keys)

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[Any]:
        async with super().begin() as transaction:
            yield WatchedTransaction(transaction, self.reached)

    async def list_routes(self, query: RouteQuery) -> list[Route]:
        self.reached.append(query)
        return await super().list_routes(query)

    async def list_traffic(self, query: TrafficQuery) -> list[Traffic]:
        self.reached.append(query)
        return await super().list_traffic(query)

    async def list_changes(self, query: ChangeQuery) -> list[Change]:
        self.reached.append(query)
        return await super().list_changes(query)


class WatchedTransaction:
    """Records everything that reaches a transaction."""

    def __init__(self, transaction: Any, reached: list[object]) -> None:
        self._transaction = transaction
        self._reached = reached

    async def lock(self, asked: Sequence[MutationScope]) -> LockedState:
        self._reached += asked
        locked: LockedState = await self._transaction.lock(asked)
        return locked

    async def record(self, changes: Sequence[Change], remembered: Sequence[StoredOutcome]) -> None:
        self._reached += (*changes, *remembered)
        await self._transaction.record(changes, remembered)


class WatchedImport(MemoryImport):
    """Records everything that reaches an import."""

    async def remembered(self, tenant: str, intent: Intent) -> Merged | None:
        cast("WatchedStore", self._store).reached += (tenant, intent)
        return await super().remembered(tenant, intent)

    async def stage(self, wanted: Sequence[Wanted]) -> None:
        reached = cast("WatchedStore", self._store).reached
        for each in wanted:
            reached += (*each, Draft(ChangeKind.CREATED, each.key, None, each.url, labels=each.labels or {}))
        await super().stage(wanted)


class Methods:
    """Collects the handlers that the generated code adds to a server."""

    def __init__(self) -> None:
        self.handlers: dict[str, Any] = {}

    def add_generic_rpc_handlers(self, _handlers: object) -> None:
        """Ignore them: the registered handlers are the same."""

    def add_registered_method_handlers(self, _service: str, handlers: Mapping[str, Any]) -> None:
        self.handlers = dict(handlers)


@dataclass(frozen=True, slots=True)
class Ended:
    """How a call ended: with the bytes of a response, or with a status."""

    response: bytes | None
    context: Context


class Rig:
    """The service on fakes. Every call starts from the same state, so that each failure can be reproduced.

    If ``guarded``, each call needs a credential: an API key of ``KEYS``.
    """

    def __init__(self, *, guarded: bool = False) -> None:
        self._guarded = guarded
        self._loop = asyncio.new_event_loop()
        atexit.register(self._loop.close)
        self._store = WatchedStore()
        self._cache = MemoryCache()
        self._local = LocalCache(size=100, ttl=1, negative_ttl=1)
        metrics = Metrics()
        # A revision that is not reached yet is refused without a wait.
        resolver = Resolver(self._store, self._cache, self._local, observer=metrics, patience=0)
        committer = GroupCommitter(self._store, self._cache, resolver.apply_local_write, supersede=resolver.supersede)
        self._resolver = resolver
        methods = Methods()
        epochs = EpochTracker(lambda: None)
        epochs.read(Clock(EPOCH, 1), epochs.seen)
        tokens, history = RevisionTokens(epochs, self._store), MemoryHistory(self._store)
        permissions = Permissions(Policy) if guarded else None
        usage, writes, share = usage_methods(), WriteMeter(metrics), FairShare()
        servicer = RouteServicer(
            resolver,
            tokens,
            committer,
            self._importer(),
            self._store,
            watch_method(self._store),
            receipt_methods(self._store),
            usage,
            writes,
            SelectionMethods(resolver, tokens, history, usage, metrics, share),
            TrafficMethods(committer, self._store, resolver, history, writes, share),
            ChangeSetMethods(committer, self._store, permissions, usage, writes, share),
            ExplainMethod(self._store, self._cache, self._local, permissions),
            metrics,
            history=history,
        )
        add_RouteServiceServicer_to_server(servicer, cast("Any", methods))
        who = authenticate(authenticator(key_verifier(*KEYS.values())))
        order = stages(
            metrics,
            Admission(),
            access=(who,) if guarded else (),
            permissions=permissions,
            deadline=5,
            access_log_sample=0,
        )
        interceptor = Interceptor(order)
        unary = {
            name: handler
            for name, handler in sorted(methods.handlers.items())
            if not (handler.request_streaming or handler.response_streaming)
        }
        self.requests = {name: _request_type(handler) for name, handler in unary.items()}
        self._handlers = {name: self._wrapped(interceptor, name, handler) for name, handler in unary.items()}

    def _importer(self) -> BulkImporter:
        return BulkImporter(MemoryBulkStore(self._store, WatchedImport), self._cache, self._resolver.supersede)

    def _wrapped(self, interceptor: Interceptor, name: str, handler: Any) -> Any:
        async def proceed(_details: object) -> Any:
            return handler

        details = type("Details", (), {"method": f"/{SERVICE}/{name}"})
        return self._loop.run_until_complete(interceptor.intercept_service(proceed, details))

    def judge(self, method: str, data: bytes, metadata: Metadata = (), *, mood: int = 0) -> None:
        """Make a call and raise AssertionError if it breaks a rule. ``mood`` chooses which dependencies fail."""
        self.start_over(mood)
        self.judge_next(method, data, metadata, mood=mood)

    def judge_next(self, method: str, data: bytes, metadata: Metadata = (), *, mood: int = 0) -> bytes | None:
        """As ``judge``, from the state that the call before has left. Returns the response, None for a status."""
        self._store.reached.clear()
        ended = self._call(method, data, metadata, None if mood & 1 else 5.0)
        for value in self._store.reached:
            check_storable(value)
        if self._guarded:
            self._judge_access(method, metadata, ended)
        if ended.response is None:
            self._judge_status(method, data, ended.context)
        return ended.response

    def _judge_access(self, method: str, metadata: Metadata, ended: Ended) -> None:
        """No call passes without a key, and none reaches the store without permission."""
        shown = [value for name, value in metadata if name == "authorization"]
        known = {f"Bearer {key_text(number)[1]}" for number in range(len(KEYS))}
        code = ended.context.status[0] if ended.context.status else grpc.StatusCode.OK
        if len(shown) != 1 or shown[0] not in known:
            assert code is grpc.StatusCode.UNAUTHENTICATED, f"{code} for {shown}"
        else:
            assert code is not grpc.StatusCode.UNAUTHENTICATED
        # A history that cannot be read is told to anybody.
        if shown == [f"Bearer {key_text(3)[1]}"] and method != BY_HISTORY:
            assert code in (grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.INVALID_ARGUMENT)
        denied = code is grpc.StatusCode.PERMISSION_DENIED and method != BY_HISTORY
        if denied or code is grpc.StatusCode.UNAUTHENTICATED:
            assert not self._store.reached, "a refused caller has reached the store"

    @property
    def content(self) -> object:
        """What a revert brings back."""
        routes = {key: (route.url, route.active, dict(route.labels)) for key, route in self._store.routes.items()}
        return routes, {key: (each.division, each.slices) for key, each in self._store.traffic.items()}

    @property
    def revision(self) -> int:
        """The last revision."""
        return self._store.revision

    def start_over(self, mood: int = 0) -> None:
        """Restore the first state."""
        self._store.start_over()
        self._store.failure = FAILURES[mood // 4 % len(FAILURES)]
        self._cache.flush()
        self._cache.down = bool(mood & 2)
        self._local.start_over(0)
        self._resolver.forget()

    def _call(self, method: str, data: bytes, metadata: Metadata, remaining: float | None) -> Ended:
        handler, context = self._handlers[method], Context(metadata, remaining)
        request = handler.request_deserializer(data)
        try:
            response = self._loop.run_until_complete(handler.unary_unary(request, context))
        except grpc.aio.AbortError:
            return Ended(None, context)
        finally:
            context.end()
        assert context.status is None
        return Ended(handler.response_serializer(response), context)

    def _judge_status(self, method: str, data: bytes, context: Context) -> None:
        assert context.status is not None
        code, message = context.status
        assert code in ALLOWED, f"{code} is not documented"
        trailers = dict(context.trailers)
        status = status_pb2.Status.FromString(_bytes(trailers["grpc-status-details-bin"]))
        refusal = read_status(status, code, message, trailers)
        assert (status.code, status.message) == (code.value[0], message)
        assert refusal.reason in REASONS, f"{refusal.reason} is no ErrorReason"
        _check_trailers(context.trailers)
        request = _parsed(self.requests[method], data)
        if refusal.reason == "UNAUTHENTICATED":
            assert refusal.metadata == {
                "credential": Credential(refusal.metadata["credential"]),
                "problem": refusal.metadata["problem"],
            }
            assert refusal.metadata["problem"] in PROBLEMS
            check_told([message], request)
            return
        if request is None:
            assert (code, message) == (grpc.StatusCode.INVALID_ARGUMENT, MALFORMED)
        said = [message, *refusal.metadata.values(), *refusal.fields, *refusal.fields.values()]
        check_told(said, request)
        if refusal.reason == "INVALID_FIELD" and MISSING_URL not in message:
            assert refusal.fields, "no field is named"
            if method != BY_HISTORY:
                assert not self._store.reached, "an invalid request has reached the store"


def check_told(said: Sequence[str], request: Message | None) -> None:
    """Raise AssertionError if a text shows internals of the server or repeats a possible secret."""
    # Well-formed keys and request ids are repeated on purpose.
    for line in said:
        # The server's own ellipsis.
        text = line.replace("…", "...")
        for known in _names(request) if request else ():
            text = text.replace(known, "<name>")
        assert text.isascii(), f"repeats the request: {line!r}"
        assert text.isprintable(), f"repeats the request: {line!r}"
        assert CANARY not in text, f"repeats a secret: {line!r}"
        assert not LEAK.search(text), f"leaks internals: {line!r}"


def check_storable(value: object) -> None:
    """Raise AssertionError unless a database can store ``value`` and it follows the rules of the API."""
    if isinstance(value, str):
        assert "\0" not in value, "a NUL reaches the store"
        value.encode()
    elif isinstance(value, int):
        assert -(2**63) <= value < 2**63, "a number that no database can store"
    elif isinstance(value, RouteKey):
        assert all(KEY_PART.fullmatch(part) for part in str(value).split("/")), f"a malformed key: {value}"
    elif isinstance(value, Mapping):
        assert len(value) <= 64, "too many labels"
    if isinstance(value, Route):
        assert url_problem(value.url) is None, "a malformed URL"
    for inner in _inside(value):
        check_storable(inner)


def _inside(value: object) -> Iterator[object]:
    if isinstance(value, Mapping):
        for pair in value.items():
            yield from pair
    elif is_dataclass(value):
        yield from (getattr(value, field.name) for field in fields(value))


def _names(request: Message) -> Iterator[str]:
    request_id = getattr(request, "request_id", "")
    if re.fullmatch(r"[A-Za-z0-9._:-]{1,64}", request_id):
        yield request_id
    keys = [request.key] if hasattr(request, "key") else getattr(request, "keys", ())
    for key in keys:
        parts = (key.tenant, key.service, key.env, key.version)
        if all(KEY_PART.fullmatch(part) for part in parts):
            yield "/".join(parts)


def _check_trailers(trailers: Metadata) -> None:
    for name, value in trailers:
        if not name.endswith("-bin"):
            # https://github.com/grpc/grpc/blob/master/doc/PROTOCOL-HTTP2.md: ASCII-Value → 1*( %x20-%x7E )
            assert isinstance(value, str)
            assert re.fullmatch(r"[\x20-\x7e]+", value), f"{name} is no text of HTTP/2: {value!r}"


def _parsed(kind: type[Message], data: bytes) -> Message | None:
    try:
        return kind.FromString(data)
    except DecodeError:
        return None


def _request_type(handler: Any) -> type[Message]:
    # The generated code gives the class method FromString.
    return type(handler.request_deserializer(b""))


def _bytes(value: str | bytes) -> bytes:
    assert isinstance(value, bytes)
    return value
