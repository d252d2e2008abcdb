"""One call over ASGI: reads its request, runs the handler, ends at the deadline or when the client has gone."""

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any

import grpc
from grpc import StatusCode
from starlette.types import Message, Receive, Scope, Send

from pointsman_server.rpc.refusal import Refusal
from pointsman_server.rpc.transport.asgi import responses
from pointsman_server.rpc.transport.asgi.arrivals import Arrivals, late
from pointsman_server.rpc.transport.asgi.context import AsgiContext, AsgiStreamContext
from pointsman_server.rpc.transport.asgi.ending import (
    BODY_SENT,
    HEADERS_SENT,
    NOTHING_SENT,
    Gone,
    end_failed,
    refusal_of,
)
from pointsman_server.rpc.transport.asgi.framing import Deframer, frame, whole_message
from pointsman_server.rpc.transport.asgi.headers import Rejected

# Messages of a stream that are read before the handler asks for them.
READ_AHEAD = 16
# Once a request has ended, pyvoy says that it is empty for as long as the client waits, and then that it has gone: so
# it is asked again after these seconds, the pause doubled each time up to the longest.
FIRST_POLL_SECONDS = 0.1
LONGEST_POLL_SECONDS = 5.0

DEADLINE_EXCEEDED = Refusal(StatusCode.DEADLINE_EXCEEDED, "deadline exceeded")
ONE_REQUEST = "the method takes exactly one request"


async def until_gone(receive: Receive) -> None:
    """Wait until the client of a call whose request has ended is gone."""
    pause = FIRST_POLL_SECONDS
    while True:
        await asyncio.sleep(pause)
        if (await receive())["type"] == "http.disconnect":
            return
        pause = min(2 * pause, LONGEST_POLL_SECONDS)


class UnaryMethod:
    """Serves calls with one request and one response."""

    def __init__(self, handler: Any, most: int, patience: float) -> None:
        """``most``: bytes of a request. ``patience``: seconds that a request may take to arrive."""
        self._handle: Callable[[Any, Any], Coroutine[Any, Any, Any]] = handler.unary_unary
        self._parse: Callable[[bytes], Any] = handler.request_deserializer or _same
        self._encode: Callable[[Any], bytes] = handler.response_serializer or _same
        self._most = most
        self._patience = patience
        self._arrivals = Arrivals(patience)

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
            event = await self._arrivals.first(receive, context)
            request = None if event.get("more_body", True) else whole_message(event["body"], self._most)
            if request is None:
                request = await self._read(event, context, receive)
            handling = self._handle(self._parse(request), context)
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
        watch = Watch(context, receive)
        try:
            return self._encode(await Resumed(handling, waiting_for))
        except BaseException as error:  # noqa: BLE001 - the boundary: each ends this call alone
            return watch.refusal(error)
        finally:
            watch.stop()

    async def _read(self, event: Message, context: AsgiContext, receive: Receive) -> bytes:
        """Read a request that did not arrive whole, or is compressed. Raises Rejected and Gone."""
        remaining = context.time_remaining()
        try:
            async with asyncio.timeout(self._patience if remaining is None else min(remaining, self._patience)):
                return await _read_one(event, Deframer(context.headers, self._most), receive)
        except TimeoutError:
            raise late() from None


async def _read_one(event: Message, deframer: Deframer, receive: Receive) -> bytes:
    request = None
    while True:
        if event["type"] == "http.disconnect":
            raise Gone
        deframer.feed(event["body"])
        while (message := deframer.next()) is not None:
            if request is not None:
                raise Rejected(StatusCode.UNIMPLEMENTED, ONE_REQUEST)
            request = message
        if not event.get("more_body", False):
            break
        event = await receive()
    deframer.end()
    if request is None:
        raise Rejected(StatusCode.UNIMPLEMENTED, ONE_REQUEST)
    return request


def _same(message: Any) -> Any:
    return message


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


class Watch:
    """Cancels the task of a call that waits: at the deadline of the client, and when the client has gone."""

    def __init__(self, context: AsgiContext, receive: Receive | None) -> None:
        """``receive`` is None for a call whose requests are still read: who reads them calls ``client_gone``."""
        self._context = context
        self._call = asyncio.current_task()
        self._gone = False
        self._ended_by: Refusal | None = None
        loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None
        # Both hold on to the task of the call, to which the event loop itself refers weakly.
        self._listener = None if receive is None else loop.create_task(self._listen(receive))
        try:
            remaining = context.time_remaining()
        except Rejected as error:
            self._end(error.refusal)
            return
        if remaining is not None:
            self._timer = loop.call_later(max(0.0, remaining), self._end, DEADLINE_EXCEEDED)

    async def _listen(self, receive: Receive) -> None:
        await until_gone(receive)
        self.client_gone()

    def client_gone(self) -> None:
        """Cancel the call: nobody waits for it."""
        self._gone = True
        self._cancel()

    def _end(self, refusal: Refusal) -> None:
        self._ended_by = refusal
        self._cancel()

    def _cancel(self) -> None:
        if self._call is not None:
            self._call.cancel()

    def stop(self) -> None:
        """Stop watching: the handler has ended."""
        self._call = None
        if self._timer is not None:
            self._timer.cancel()
        if self._listener is not None:
            self._listener.cancel()

    def refusal(self, error: BaseException) -> Refusal:
        """Return how a call ends whose handler raised ``error``. Raises Gone when nobody waits."""
        if self._gone:
            raise Gone from error
        if isinstance(error, asyncio.CancelledError) and self._ended_by is not None:
            return self._ended_by
        return refusal_of(error, self._context)


class StreamMethod:
    """Serves calls with a stream on either side."""

    def __init__(self, handler: Any, most: int, patience: float) -> None:
        """``most``: bytes of one request. ``patience``: seconds that the only one may take to arrive."""
        self._request_streaming = handler.request_streaming
        self._response_streaming = handler.response_streaming
        kinds = ("unary", "stream")
        self._handle = getattr(handler, f"{kinds[self._request_streaming]}_{kinds[self._response_streaming]}")
        self._parse: Callable[[bytes], Any] = handler.request_deserializer or _same
        self._encode: Callable[[Any], bytes] = handler.response_serializer or _same
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
        """Send a response; waits until the server has taken it. Raises Gone when the client has gone."""
        await self.begin()
        try:
            await responses.send_message(self._send, self._encode(response))
        except OSError:
            raise Gone from None

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


Serve = Callable[[Scope, Receive, Send], Awaitable[None]]
