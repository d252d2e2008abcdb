"""Calls with one request and a stream of responses over ASGI.

Thousands may be open at once, most of them waiting: each is one task, with as little beside it as can be.
"""

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.types import Receive, Scope, Send

from pointsman_server.rpc.refusal import Refusal
from pointsman_server.rpc.transport.asgi import responses
from pointsman_server.rpc.transport.asgi.arrivals import Arrivals
from pointsman_server.rpc.transport.asgi.context import AsgiContext
from pointsman_server.rpc.transport.asgi.departures import Departures
from pointsman_server.rpc.transport.asgi.ending import HEADERS_SENT, NOTHING_SENT, Gone, end_failed
from pointsman_server.rpc.transport.asgi.framing import as_it_is
from pointsman_server.rpc.transport.asgi.headers import Rejected
from pointsman_server.rpc.transport.asgi.watch import Watch


class ResponseStreamMethod:
    """Serves calls with one request and a stream of responses."""

    def __init__(self, handler: Any, most: int, patience: float) -> None:
        """``most``: bytes of the request. ``patience``: seconds that it may take to arrive."""
        self._handle = handler.unary_stream
        self._parse: Callable[[bytes], Any] = handler.request_deserializer or as_it_is
        self._encode: Callable[[Any], bytes] = handler.response_serializer or as_it_is
        self._arrivals = Arrivals(most, patience)
        self._departures = Departures()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        context = ResponseStreamContext(scope, send, self._encode)
        del scope  # the context drops most of it
        try:
            await context.close(await self._outcome(context, receive))
        except (Gone, OSError):
            return
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the boundary: see end_failed
            await end_failed(send, HEADERS_SENT if context.begun else NOTHING_SENT, error)
        finally:
            context.end()

    async def _outcome(self, context: "ResponseStreamContext", receive: Receive) -> Refusal | None:
        try:
            request = self._parse(await self._arrivals.request(receive, context))
        except Rejected as error:
            return error.refusal
        watch = Watch(context)
        watch.until_gone(self._departures, receive)
        try:
            await self._handle(request, context)
        except BaseException as error:  # noqa: BLE001 - the boundary: each ends this call alone
            if context.gone:
                watch.note_gone()
            return watch.refusal(error)
        finally:
            watch.stop()
        return None


class ResponseStreamContext(AsgiContext):
    """A call with a stream of responses."""

    begun = False
    # Whether a response could not be sent, because the client has gone.
    gone = False

    def __init__(self, scope: Scope, send: Send, encode: Callable[[Any], bytes]) -> None:
        super().__init__(scope)
        self._send = send
        self._encode = encode

    async def write(self, response: Any) -> None:
        """Send a response; waits until the server has taken it. Raises CancelledError when the client has gone."""
        try:
            await self._begin()
            await responses.send_message(self._send, self._encode(response))
        except OSError:
            # As grpcio does: who waits for a write learns it by a cancellation, not by an error that would be logged.
            self.gone = True
            raise asyncio.CancelledError from None

    async def _begin(self) -> None:
        if not self.begun:
            self.begun = True
            self.drop_headers()
            await self._send(responses.start(self.initial_metadata))

    async def close(self, refusal: Refusal | None) -> None:
        """End the call: by OK without ``refusal``."""
        if refusal is not None and not self.begun:
            await responses.send_refusal(self._send, refusal)
            return
        await self._begin()
        await self._send({"type": "http.response.body", "body": b""})
        await responses.send_trailers(self._send, refusal, self._trailers)
