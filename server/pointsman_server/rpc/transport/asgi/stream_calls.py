"""Calls with a stream on either side over ASGI."""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

import grpc
from grpc import StatusCode
from starlette.types import Message, Receive, Scope, Send

from pointsman_server.rpc.refusal import Refusal
from pointsman_server.rpc.transport.asgi import responses
from pointsman_server.rpc.transport.asgi.arrivals import late
from pointsman_server.rpc.transport.asgi.context import AsgiStreamContext
from pointsman_server.rpc.transport.asgi.ending import HEADERS_SENT, NOTHING_SENT, Gone, end_failed
from pointsman_server.rpc.transport.asgi.framing import ONE_REQUEST, Deframer, as_it_is
from pointsman_server.rpc.transport.asgi.headers import Rejected
from pointsman_server.rpc.transport.asgi.watch import Watch, until_gone

# Messages of a stream that are read before the handler asks for them.
READ_AHEAD = 16


class StreamMethod:
    """Serves calls with a stream on either side."""

    def __init__(self, handler: Any, most: int, patience: float) -> None:
        """``most``: bytes of one request. ``patience``: seconds that the only one may take to arrive."""
        self._request_streaming = handler.request_streaming
        self._response_streaming = handler.response_streaming
        kinds = ("unary", "stream")
        self._handle = getattr(handler, f"{kinds[self._request_streaming]}_{kinds[self._response_streaming]}")
        self._parse: Callable[[bytes], Any] = handler.request_deserializer or as_it_is
        self._encode: Callable[[Any], bytes] = handler.response_serializer or as_it_is
        self._most = most
        self._patience = patience

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one call."""
        call = _StreamCall(scope, receive, send, self._parse, self._encode, self._most)
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
            request: Any = call if self._request_streaming else await self._only_request(call)
            response = await self._handle(request, call.context)
            if not self._response_streaming:
                await call.write(response)
        except BaseException as error:  # noqa: BLE001 - the boundary: each ends this call alone
            return call.watch.refusal(error)
        finally:
            call.watch.stop()
        return None

    async def _only_request(self, call: "_StreamCall") -> Any:
        try:
            async with asyncio.timeout(self._patience):
                return await call.only_request()
        except TimeoutError:
            raise late() from None


class _StreamCall:
    """The requests and responses of one call. As an async iterator it gives the requests."""

    def __init__(
        self,
        scope: Scope,
        receive: Receive,
        send: Send,
        parse: Callable[[bytes], Any],
        encode: Callable[[Any], bytes],
        most: int,
    ) -> None:
        self.context = AsgiStreamContext(scope, self.read, self.write)
        self.watch = Watch(self.context, None)
        self.begun = False
        self._send = send
        self._parse = parse
        self._encode = encode
        self._requests: deque[bytes] = deque()
        self._problem: Rejected | None = None
        self._ended = False
        self._changed = asyncio.Event()
        self._room = asyncio.Event()
        self._reader = asyncio.create_task(self._receive_all(receive, Deframer(self.context.headers, most)))

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

    async def only_request(self) -> Any:
        """Return the one request of a call that has no stream of them. Raises Rejected."""
        request = await self.read()
        if request is grpc.aio.EOF or await self.read() is not grpc.aio.EOF:
            raise Rejected(StatusCode.UNIMPLEMENTED, ONE_REQUEST)
        return request

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
        self._reader.cancel()
        self.context.end()

    async def _receive_all(self, receive: Receive, deframer: Deframer) -> None:
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
        await until_gone(receive)
        self.watch.client_gone()

    async def _take(self, event: Message, deframer: Deframer) -> None:
        deframer.feed(event["body"])
        while (message := deframer.next()) is not None:
            while len(self._requests) >= READ_AHEAD:
                self._room.clear()
                await self._room.wait()
            self._requests.append(message)
            self._changed.set()
        if not event.get("more_body", False):
            deframer.end()
            self._ended = True
            self._changed.set()
