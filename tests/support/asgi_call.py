"""One request to an ASGI application, and what the application answers, without a server."""

import asyncio
from collections.abc import Callable, Iterable
from typing import Any

from starlette.types import ASGIApp, Message

Header = tuple[bytes, bytes]
GRPC: Header = (b"content-type", b"application/grpc")


def frame(message: bytes, flag: int = 0) -> bytes:
    """Put the prefix of a message before it."""
    return bytes((flag,)) + len(message).to_bytes(4) + message


class AsgiCall:
    """A client that sends ``parts`` of a request, and its end unless it is ``open``; as pyvoy passes it on.

    After the end, ``receive`` answers with empty parts until the client is ``gone``; then ``send`` raises OSError.
    While ``reads`` is not set, the client reads nothing: ``send`` waits.
    """

    def __init__(
        self, *parts: bytes, headers: Iterable[Header] = (), path: str = "/test.Service/Do", is_open: bool = False
    ) -> None:
        self.scope: dict[str, Any] = {
            "type": "http",
            "method": "POST",
            "path": path,
            "headers": [GRPC, *headers],
            "client": ("127.0.0.1", 7),
        }
        self.sent: list[Message] = []
        self.gone = False
        self.reads = asyncio.Event()
        self.reads.set()
        self._parts: asyncio.Queue[Message | None] = asyncio.Queue()
        self._ended = False
        for number, part in enumerate(parts, 1):
            self.feed(part, more=is_open or number < len(parts))
        if not parts and not is_open:
            self.feed(b"", more=False)

    def feed(self, part: bytes, *, more: bool = True) -> None:
        """Send a part of the request."""
        self._parts.put_nowait({"type": "http.request", "body": part, "more_body": more})

    def leave(self) -> None:
        """Cancel the call."""
        self.gone = True
        self._parts.put_nowait(None)

    @property
    def waiting(self) -> int:
        """How many parts the application has not taken."""
        return self._parts.qsize()

    async def receive(self) -> Message:
        if self.gone:
            return {"type": "http.disconnect"}
        if self._ended:
            return {"type": "http.request", "body": b"", "more_body": False}
        event = await self._parts.get()
        if event is None:
            return {"type": "http.disconnect"}
        self._ended = not event["more_body"]
        return event

    async def send(self, event: Message) -> None:
        await self.reads.wait()
        if self.gone:
            raise OSError("the client is gone")
        self.sent.append(event)

    async def made_to(self, application: ASGIApp) -> "AsgiCall":
        """Make the call, and return it when it is over."""
        async with asyncio.timeout(10):
            await application(self.scope, self.receive, self.send)
        return self

    @property
    def headers(self) -> dict[bytes, bytes]:
        """The headers of the response."""
        return dict(self.sent[0]["headers"])

    @property
    def body(self) -> bytes:
        """The bytes of the response."""
        return b"".join(event["body"] for event in self.sent if event["type"] == "http.response.body")

    @property
    def trailers(self) -> dict[bytes, bytes]:
        """The trailers: in the headers where nothing else was sent."""
        last = self.sent[-1]
        return dict(last["headers"]) if last["type"] == "http.response.trailers" else self.headers

    @property
    def status(self) -> tuple[int, bytes]:
        """The number and the text of the status."""
        return int(self.trailers[b"grpc-status"]), self.trailers.get(b"grpc-message", b"")


async def until(holds: Callable[[], bool]) -> None:
    """Wait until ``holds`` is true. Raises TimeoutError after 10 seconds."""
    async with asyncio.timeout(10):
        while not holds():  # noqa: ASYNC110 - on what another task does
            await asyncio.sleep(0)
