"""The handler answers from the fast path, and hands what that declines to the chain."""

from collections.abc import Callable
from typing import Any, cast

import pytest
from grpc import StatusCode

from pointsman_server.domain.errors import Overloaded
from pointsman_server.reads.local_lookup import LocalLookup
from pointsman_server.rpc.fastpath.declined import lookup_of_call
from pointsman_server.rpc.fastpath.fast_path import Declined, FastPath
from pointsman_server.rpc.fastpath.handler import (
    BATCH_RESOLVE,
    BATCH_SELECT,
    LARGE_REQUEST,
    RESOLVE,
    SELECT,
    FastMethod,
    fast_methods,
)
from pointsman_server.rpc.interceptors.bulk_limit import Bulk
from pointsman_server.rpc.refusal import Refusal

LOOKUP = LocalLookup(7, 0.0, ())


class Aborted(Exception):
    """As grpcio raises it."""


class Context:
    def __init__(self) -> None:
        self.ended: tuple[Any, ...] = ()
        self.trailers: Any = None
        self.callbacks: list[Callable[[Any], None]] = []

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def set_trailing_metadata(self, trailers: Any) -> None:
        self.trailers = trailers

    async def abort(self, code: StatusCode, text: str) -> None:
        self.ended = (code, text, self.trailers)
        raise Aborted

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self.callbacks.append(callback)


class TurnsOfBulk(Bulk):
    """Counts the turns that were waited for."""

    def __init__(self) -> None:
        super().__init__(most=10)
        self.turns = 0

    async def turn(self) -> None:
        self.turns += 1


async def handle(outcome: Any, request: bytes = b"request", bulk: Bulk | None = None, context: Any = None) -> bytes:
    """Serve a request by a fast path with this outcome; the chain says what it got, and the lookup that it saw."""

    async def chain(parsed: Any, _context: Any) -> Any:
        return (parsed, lookup_of_call())

    method = FastMethod(RESOLVE, lambda _request, _context: outcome, bulk or TurnsOfBulk())
    handler = method.before(chain, lambda encoded: ("parsed", encoded), lambda message: repr(message).encode())
    return cast("bytes", await handler(request, context or cast("Any", Context())))


async def test_a_response_is_returned_as_it_is() -> None:
    assert await handle(b"response") == b"response"


async def test_a_refusal_aborts_the_call() -> None:
    context, refusal = Context(), Refusal(StatusCode.NOT_FOUND, "no such route", (("x", "y"),))
    with pytest.raises(Aborted):
        await handle(refusal, context=context)
    assert context.ended == (refusal.code, refusal.text, refusal.trailers)


@pytest.mark.parametrize("lookup", [LOOKUP, None])
async def test_the_chain_serves_what_is_declined_and_sees_the_lookup(lookup: LocalLookup | None) -> None:
    assert await handle(Declined(lookup)) == repr((("parsed", b"request"), lookup)).encode()


@pytest.mark.parametrize(("size", "turns"), [(LARGE_REQUEST, 0), (LARGE_REQUEST + 1, 1)])
async def test_a_large_request_waits_for_a_turn(size: int, turns: int) -> None:
    bulk = TurnsOfBulk()
    await handle(b"response", request=bytes(size), bulk=bulk)
    assert bulk.turns == turns


class Path:
    """A fast path that serves batches of six keys."""

    def resolve(self, _request: bytes, _context: Any) -> bytes:
        return b"one"

    def batch_resolve(self, _request: bytes, _context: Any, admit: Callable[[int], None]) -> bytes:
        admit(6)
        return b"many"

    select, batch_select = resolve, batch_resolve

    @property
    def selects(self) -> "Path":
        return self


@pytest.mark.parametrize("batch", [BATCH_RESOLVE, BATCH_SELECT], ids=str)
async def test_a_batch_is_admitted_until_its_response_is_sent(batch: Any) -> None:
    bulk, first = Bulk(most=10), Context()
    methods = fast_methods(cast("FastPath", Path()), bulk)
    assert set(methods) == {RESOLVE, BATCH_RESOLVE, SELECT, BATCH_SELECT}

    def begin(name: Any, context: Context) -> Any:
        handler = methods[name].before(cast("Any", None), cast("Any", None), cast("Any", None))
        return handler(b"request", cast("Any", context))

    assert await begin(RESOLVE, Context()) == await begin(SELECT, Context()) == b"one"
    assert await begin(batch, first) == b"many"
    with pytest.raises(Overloaded):
        await begin(batch, Context())
    for callback in first.callbacks:
        callback(first)
    last = Context()
    assert await begin(batch, last) == b"many"
    for callback in last.callbacks:
        callback(last)
