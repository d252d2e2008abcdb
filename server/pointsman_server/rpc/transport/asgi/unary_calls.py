"""Calls with one request and one response over ASGI."""

import asyncio
from collections.abc import Callable, Coroutine, Generator
from typing import Any

from starlette.types import Receive, Scope, Send

from pointsman_server.rpc.refusal import Refusal
from pointsman_server.rpc.transport.asgi import responses
from pointsman_server.rpc.transport.asgi.arrivals import Arrivals
from pointsman_server.rpc.transport.asgi.context import AsgiContext
from pointsman_server.rpc.transport.asgi.departures import Departures
from pointsman_server.rpc.transport.asgi.ending import (
    BODY_SENT,
    HEADERS_SENT,
    NOTHING_SENT,
    Gone,
    end_failed,
    refusal_of,
)
from pointsman_server.rpc.transport.asgi.framing import as_it_is, frame
from pointsman_server.rpc.transport.asgi.headers import Rejected
from pointsman_server.rpc.transport.asgi.watch import Watch


class UnaryMethod:
    """Serves calls with one request and one response."""

    def __init__(self, handler: Any, most: int, patience: float) -> None:
        """``most``: bytes of a request. ``patience``: seconds that a request may take to arrive."""
        self._handle: Callable[[Any, Any], Coroutine[Any, Any, Any]] = handler.unary_unary
        self._parse: Callable[[bytes], Any] = handler.request_deserializer or as_it_is
        self._encode: Callable[[Any], bytes] = handler.response_serializer or as_it_is
        self._arrivals = Arrivals(most, patience)
        self._departures = Departures()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        context = AsgiContext(scope)
        progress = NOTHING_SENT
        try:
            outcome = await self._outcome(context, receive)
            if isinstance(outcome, Refusal):
                await responses.send_refusal(send, outcome)
                return
            await send(responses.start(context.initial_metadata))
            progress = HEADERS_SENT
            if len(outcome) > responses.PART_BYTES:
                await responses.send_parts(send, outcome)
            else:
                await send({"type": "http.response.body", "body": frame(outcome)})
            progress = BODY_SENT
            await responses.send_trailers(send, None, context.trailing_metadata())
        except (Gone, OSError):
            # Nobody is left to answer.
            return
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the boundary: see end_failed
            await end_failed(send, progress, error)
        finally:
            context.end()

    async def _outcome(self, context: AsgiContext, receive: Receive) -> bytes | Refusal:
        try:
            handling = self._handle(self._parse(await self._arrivals.request(receive, context)), context)
        except Rejected as error:
            return error.refusal
        try:
            # A call that is answered at once needs neither a timer nor a task that watches its client.
            waiting_for = handling.send(None)
        except StopIteration as done:
            response = done.value
        except BaseException as error:  # noqa: BLE001 - the boundary: each ends this call alone
            return refusal_of(error, context)
        else:
            return await self._wait(handling, waiting_for, context, receive)
        return self._encode(response)

    async def _wait(
        self, handling: Coroutine[Any, Any, Any], waiting_for: Any, context: AsgiContext, receive: Receive
    ) -> bytes | Refusal:
        watch = Watch(context)
        watch.until_gone(self._departures, receive)
        try:
            return self._encode(await Resumed(handling, waiting_for))
        except BaseException as error:  # noqa: BLE001 - the boundary: each ends this call alone
            return watch.refusal(error)
        finally:
            watch.stop()


class Resumed:
    """Awaits the rest of a coroutine that has been started, and waits for the future ``waiting_for``."""

    def __init__(self, coroutine: Coroutine[Any, Any, Any], waiting_for: Any) -> None:
        self._coroutine = coroutine
        self._waiting_for = waiting_for

    def __await__(self) -> Generator[Any, Any, Any]:
        coroutine, waiting_for = self._coroutine, self._waiting_for
        try:
            while True:
                try:
                    sent = yield waiting_for
                except BaseException as error:  # noqa: BLE001 - a cancellation, for the coroutine to handle
                    waiting_for = coroutine.throw(error)
                else:
                    waiting_for = coroutine.send(sent)
        except StopIteration as done:
            return done.value
