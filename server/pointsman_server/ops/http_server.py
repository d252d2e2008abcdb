"""A port that answers a few paths by HTTP/1.1 (RFC 9112), for programs that ask again and again from nearby.

Written out, because a web framework takes a tenth of the memory of a server. Every connection carries one request, of
which only the head is read, and whatever is slow or large ends early: nobody can hold on to anything here.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from email.utils import formatdate
from http import HTTPStatus
from urllib.parse import urlsplit

logger = logging.getLogger(__name__)

MOST_HEAD_BYTES = 16 << 10
MOST_CONNECTIONS = 256
READ_SECONDS = 10.0
SEND_SECONDS = 10.0
STOP_SECONDS = 0.5
PLAIN = "text/plain; charset=utf-8"


@dataclass(frozen=True, slots=True)
class Answer:
    """What is at a path now: its media type, and its bytes."""

    body: bytes
    media_type: str
    status: HTTPStatus = HTTPStatus.OK
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True, slots=True)
class _Request:
    method: str
    path: str


class _Refused(Exception):
    """A request that is not answered: the status says why."""

    def __init__(self, status: HTTPStatus, headers: Mapping[str, str] | None = None) -> None:
        self.answer = Answer(f"{status.value} {status.phrase}\n".encode(), PLAIN, status, headers)
        super().__init__(status.phrase)


class HttpPort:
    """Answers GET and HEAD of the paths in ``answers``, each by what its function returns, which must be quick."""

    def __init__(self, answers: Mapping[str, Callable[[], Answer]]) -> None:
        self._answers = answers
        self._server: asyncio.Server | None = None
        self._open: set[asyncio.Task[None]] = set()

    async def start(self, host: str, port: int, *, share: bool) -> int:
        """Listen; ``share`` lets several processes listen on one port. Returns the port. Raises OSError."""
        self._server = await asyncio.start_server(
            self._connected, host, port, limit=MOST_HEAD_BYTES, reuse_port=share or None
        )
        return int(self._server.sockets[0].getsockname()[1])

    async def stop(self) -> None:
        """Stop listening, and end what is open: what has been asked is answered, if that is quick."""
        if self._server is None:
            return
        self._server.close()
        if self._open:
            _, slow = await asyncio.wait(self._open, timeout=STOP_SECONDS)
            for task in slow:
                task.cancel()
            await asyncio.gather(*slow, return_exceptions=True)
        await self._server.wait_closed()

    def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if len(self._open) >= MOST_CONNECTIONS:
            writer.close()
            return
        task = asyncio.create_task(self._serve(reader, writer))
        self._open.add(task)
        task.add_done_callback(self._open.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        # Else the rest of an answer would wait for its reader behind our back, after the connection was closed.
        writer.transport.set_write_buffer_limits(0)
        try:
            async with asyncio.timeout(READ_SECONDS):
                head = await _head(reader)
            if head is not None:
                async with asyncio.timeout(SEND_SECONDS):
                    writer.write(self._answered(head))
                    await writer.drain()
        except (OSError, TimeoutError):
            pass  # Who asked has gone, or is too slow.
        finally:
            writer.transport.abort()

    def _answered(self, head: bytes) -> bytes:
        method = ""
        try:
            request = _parsed(head)
            method = request.method
            answer = self._answer(request)
        except _Refused as refused:
            answer = refused.answer
        except Exception:
            logger.exception("operations cannot be answered")
            answer = _Refused(HTTPStatus.INTERNAL_SERVER_ERROR).answer
        return _response(answer, with_body=method != "HEAD")

    def _answer(self, request: _Request) -> Answer:
        answer = self._answers.get(request.path)
        if answer is None:
            raise _Refused(HTTPStatus.NOT_FOUND)
        if request.method not in {"GET", "HEAD"}:
            raise _Refused(HTTPStatus.METHOD_NOT_ALLOWED, {"Allow": "GET, HEAD"})
        return answer()


async def _head(reader: asyncio.StreamReader) -> bytes | None:
    """Read up to the end of the head; empty for one that is too large, None for a connection that ended before it."""
    try:
        return await reader.readuntil(b"\r\n\r\n")
    except asyncio.IncompleteReadError:
        return None
    except asyncio.LimitOverrunError:
        return b""


def _parsed(head: bytes) -> _Request:
    """Read the first line (RFC 9112, 3), whose target may be a path or a whole URL. Raises _Refused."""
    if not head:
        raise _Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
    try:
        method, target, version = head.partition(b"\r\n")[0].decode("ascii").split(" ")
        path = urlsplit(target).path
    except ValueError:
        raise _Refused(HTTPStatus.BAD_REQUEST) from None
    if not version.startswith("HTTP/1."):
        raise _Refused(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED if version.startswith("HTTP/") else HTTPStatus.BAD_REQUEST)
    return _Request(method, path)


def _response(answer: Answer, *, with_body: bool) -> bytes:
    headers = {
        "Content-Type": answer.media_type,
        "Content-Length": str(len(answer.body)),
        "Date": formatdate(usegmt=True),
        "Connection": "close",
        **(answer.headers or {}),
    }
    lines = [
        f"HTTP/1.1 {answer.status.value} {answer.status.phrase}",
        *(f"{name}: {headers[name]}" for name in headers),
    ]
    return "\r\n".join([*lines, "", ""]).encode("ascii") + (answer.body if with_body else b"")
