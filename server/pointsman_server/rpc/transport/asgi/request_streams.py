"""Calls with a stream of requests over ASGI."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
from starlette.types import Message, Receive, Scope, Send

from pointsman_server.rpc.refusal import Refusal
from pointsman_server.rpc.transport.asgi import responses
from pointsman_server.rpc.transport.asgi.compression import Unpacker
from pointsman_server.rpc.transport.asgi.context import AsgiStreamContext
from pointsman_server.rpc.transport.asgi.departures import Departures
from pointsman_server.rpc.transport.asgi.ending import HEADERS_SENT, NOTHING_SENT, Gone, end_failed
from pointsman_server.rpc.transport.asgi.framing import Deframer, as_it_is
from pointsman_server.rpc.transport.asgi.headers import Rejected
from pointsman_server.rpc.transport.asgi.watch import Watch

# Messages of a stream that are read before the handler asks for them.
READ_AHEAD = 16


class RequestStreamMethod:
    """Serves calls with a stream of requests."""

    def __init__(self, handler: Any, most: int) -> None:
        """``most``: bytes of one request."""
        self._response_streaming = handler.response_streaming
        self._handle = handler.stream_stream if self._response_streaming else handler.stream_unary
        self._parse: Callable[[bytes], Any] = handler.request_deserializer or as_it_is
        self._encode: Callable[[Any], bytes] = handler.response_serializer or as_it_is
        self._departures = Departures()
        self._unpacker = Unpacker(most)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        call = _StreamCall(scope, send, self._parse, self._encode)
        call.start(receive, self._unpacker, self._departures)
        try:
            await self._serve(call, send)
        except (Gone, OSError):
            return
        except (Exception, asyncio.CancelledError) as error:  # noqa: BLE001 - the boundary: see end_failed
            await end_failed(send, HEADERS_SENT if call.begun else NOTHING_SENT, error)
        finally:
            await call.close()

    async def _serve(self, call: "_StreamCall", send: Send) -> None:
        refusal = await self._outcome(call)
        if refusal is not None and not call.begun:
            await responses.send_refusal(send, refusal)
            return
        await call.begin()
        await send({"type": "http.response.body", "body": b""})
        await responses.send_trailers(send, refusal, call.context.trailing_metadata())

    async def _outcome(self, call: "_StreamCall") -> Refusal | None:
        try:
            response = await self._handle(call, call.context)
            if not self._response_streaming:
                await call.write(response)
        except BaseException as error:  # noqa: BLE001 - the boundary: each ends this call alone
            return call.watch.refusal(error)
        finally:
            call.watch.stop()
        return None


class _StreamCall:
    """The requests and responses of one call. As an async iterator it gives the requests."""

    def __init__(
        self,
        scope: Scope,
        send: Send,
        parse: Callable[[bytes], Any],
        encode: Callable[[Any], bytes],
    ) -> None:
        self.context = AsgiStreamContext(scope, self.read, self.write)
        self.watch = Watch(self.context)
        self.begun = False
        self._send = send
        self._parse = parse
        self._encode = encode
        self._requests: deque[bytes] = deque()
        self._problem: Rejected | None = None
        self._ended = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._reader: asyncio.Task[None] | None = None

    def start(self, receive: Receive, unpacker: Unpacker, departures: Departures) -> None:
        """Read requests from now on."""
        deframer = Deframer(self.context.headers, unpacker)
        self._reader = asyncio.create_task(self._receive_all(receive, deframer, departures))

    def __aiter__(self) -> "_StreamCall":
        return self

    async def __anext__(self) -> Any:
        request = await self.read()
        if request is grpc.aio.EOF:
            raise StopAsyncIteration
        return request

    async def read(self) -> Any:
        """Return the next request, or ``grpc.aio.EOF``. Raises Rejected."""
        while not self._requests:
            if self._problem is not None:
                raise self._problem
            if self._ended:
                return grpc.aio.EOF
            self._changed.clear()
            await self._changed.wait()
        request = self._requests.popleft()
        self._room.set()
        return self._parse(request)

    async def begin(self) -> None:
        """Send the headers, once."""
        if not self.begun:
            self.begun = True
            await self._send(responses.start(self.context.initial_metadata))

    async def write(self, response: Any) -> None:
        """Send a response; waits until the server has taken it. Raises CancelledError when the client has gone."""
        try:
            await self.begin()
            await responses.send_message(self._send, self._encode(response))
        except OSError:
            # As grpcio does: who waits for a write learns it by a cancellation, not by an error that would be logged.
            self.watch.note_gone()
            raise asyncio.CancelledError from None

    async def close(self) -> None:
        """End the call."""
        if self._reader is not None:
            self._reader.cancel()
        self.context.end()

    async def _receive_all(self, receive: Receive, deframer: Deframer, departures: Departures) -> None:
        """Read requests as they arrive, and then wait until the client has gone."""
        try:
            while not self._ended:
                event = await receive()
                if event["type"] == "http.disconnect":
                    self.watch.client_gone()
                    return
                await self._take(event, deframer)
        except Rejected as error:
            self._problem = error
            self._changed.set()
        except OSError:
            self.watch.client_gone()
            return
        self.watch.until_gone(departures, receive)

    async def _take(self, event: Message, deframer: Deframer) -> None:
        deframer.feed(event["body"])
        while (message := await deframer.next()) is not None:
            while len(self._requests) >= READ_AHEAD:
                self._room.clear()
                await self._room.wait()
            self._requests.append(message)
            self._changed.set()
        if not event.get("more_body", False):
            deframer.end()
            self._ended = True
            self._changed.set()
