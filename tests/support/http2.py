"""HTTP/2 against the rules: any frames, on a socket, without a state machine that refuses them.

The frames and the header compression are those of the h2 library. Every wait is bounded.
"""

import socket
import struct
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from types import MappingProxyType

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
RESOLVE = "/pointsman.v1.RouteService/Resolve"
PATIENCE_SECONDS = 30.0
LARGEST_WINDOW = 2**31 - 1
FIRST_WINDOW = 65_535
PIECE = 16_384
FRAME_HEAD = 9
CANCEL = 8
INITIAL_WINDOW = 4  # of SETTINGS

Headers = Mapping[str, str]
# The headers of every call.
CALL: dict[str, str] = {
    ":method": "POST",
    ":scheme": "http",
    ":path": RESOLVE,
    ":authority": "localhost",
    "content-type": "application/grpc",
    "te": "trailers",
}


def message(body: bytes, *, compressed: bool = False) -> bytes:
    """Give a gRPC message its prefix."""
    return struct.pack(">BI", compressed, len(body)) + body


class Connection:
    """One connection of an abuser. ``gone``: the server closed it; then nothing is sent any more."""

    def __init__(self, address: str, settings: Mapping[int, int] = MappingProxyType({})) -> None:
        host, _, port = address.rpartition(":")
        self._socket = socket.create_connection((host, int(port)), PATIENCE_SECONDS)
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._encoder = Encoder()
        self._decoder = Decoder()
        self._unread = b""
        self._next = 1
        self.gone = False
        self.goaway: GoAwayFrame | None = None
        self.headers: dict[int, dict[str, str]] = {}
        self.resets: dict[int, int] = {}
        self.data: dict[int, int] = {}
        self.pongs = 0
        # Of the server.
        self.pings = 0
        self.settings: dict[int, int] = {}
        self.settings_acked = 0
        # What the server said it takes: of stream 0, the connection, and beyond its SETTINGS of the others.
        self._windows: dict[int, int] = {0: FIRST_WINDOW}
        self.send(PREFACE + frame(SettingsFrame(0, settings=dict(settings))))

    def close(self) -> None:
        """Hang up."""
        self._socket.close()

    # Sending

    def send(self, data: bytes) -> bool:
        """Send bytes as they are; says whether the server still takes them."""
        with suppress(OSError):
            if not self.gone:
                self._socket.sendall(data)
                return True
        self.gone = True
        return False

    def stream(self) -> int:
        """Take the next stream id."""
        number = self._next
        self._next += 2
        return number

    def begin(self, stream: int, path: str = RESOLVE, *, ended: bool = False, **more: str) -> bytes:
        """Encode the HEADERS of a call; a name in ``more`` has ``_`` for ``-``."""
        block = self.fields(CALL | {":path": path} | {name.replace("_", "-"): value for name, value in more.items()})
        flags = ["END_HEADERS", "END_STREAM"] if ended else ["END_HEADERS"]
        return frame(HeadersFrame(stream, block, flags=flags))

    def fields(self, fields: Headers) -> bytes:
        """Compress headers."""
        return bytes(self._encoder.encode(list(fields.items()), huffman=False))

    def call(self, body: bytes, path: str = RESOLVE) -> int:
        """Make a whole call of one small message; returns its stream."""
        stream = self.stream()
        self.send(self.begin(stream, path) + data(stream, message(body), ended=True))
        return stream

    def upload(self, stream: int, body: bytes, *, ended: bool = True) -> int:
        """Send a body as fast as the windows of the server allow; returns how much it took before the call ended."""
        for start in range(0, len(body), PIECE):
            piece = body[start : start + PIECE]
            last = ended and start + PIECE >= len(body)
            if not self.until(lambda: self.ended(stream) or self._window(stream) >= PIECE) or self.ended(stream):
                return start
            self._windows[0] -= len(piece)
            self._windows[stream] = self._windows.get(stream, 0) - len(piece)
            if not self.send(data(stream, piece, ended=last)):
                return start
        return len(body)

    def _window(self, stream: int) -> int:
        return min(self._windows[0], self.settings.get(INITIAL_WINDOW, FIRST_WINDOW) + self._windows.get(stream, 0))

    # Receiving

    def until(self, holds: Callable[[], object], patience: float = PATIENCE_SECONDS) -> bool:
        """Read frames until ``holds``, or nothing more comes; says whether it holds."""
        give_up = time.monotonic() + patience
        while not holds():
            if self.gone or time.monotonic() > give_up or not self._read(give_up - time.monotonic()):
                return bool(holds())
        return True

    def ended(self, stream: int) -> bool:
        """Say whether a call is over, in whatever way."""
        return stream in self.resets or "grpc-status" in self.headers.get(stream, {}) or self.refused(stream)

    def refused(self, stream: int) -> bool:
        """Say whether a call was refused below gRPC, by an HTTP status."""
        return self.headers.get(stream, {}).get(":status", "200") != "200"

    def status(self, stream: int) -> int | None:
        """Return the gRPC status of a call that has one."""
        status = self.headers.get(stream, {}).get("grpc-status")
        return None if status is None else int(status)

    def _read(self, seconds: float) -> bool:
        self._socket.settimeout(max(0.001, seconds))
        try:
            received = self._socket.recv(1 << 16)
        except TimeoutError:
            return False
        except OSError:
            received = b""
        if not received:
            self.gone = True
        self._unread += received
        for each in self._frames():
            self._take(each)
        return bool(received)

    def _frames(self) -> Iterator[Frame]:
        unread, start = memoryview(self._unread), 0
        while len(unread) - start >= FRAME_HEAD:
            head, length = Frame.parse_frame_header(unread[start : start + FRAME_HEAD])
            end = start + FRAME_HEAD + length
            if len(unread) < end:
                break
            head.parse_body(unread[start + FRAME_HEAD : end])
            start = end
            yield head
        self._unread = bytes(unread[start:])

    def _take(self, received: Frame) -> None:
        match received:
            case HeadersFrame() | ContinuationFrame():
                fields = {str(name): str(value) for name, value in self._decoder.decode(received.data)}
                self.headers[received.stream_id] = self.headers.get(received.stream_id, {}) | fields
            case DataFrame():
                self.data[received.stream_id] = self.data.get(received.stream_id, 0) + len(received.data)
            case RstStreamFrame():
                self.resets[received.stream_id] = received.error_code
            case _:
                self._take_of_connection(received)

    def _take_of_connection(self, received: Frame) -> None:
        match received:
            case GoAwayFrame():
                self.goaway = received
            case WindowUpdateFrame():
                self._windows[received.stream_id] = self._windows.get(received.stream_id, 0) + received.window_increment
            case PingFrame():
                self._take_ping(received)
            case SettingsFrame():
                self._take_settings(received)

    def _take_ping(self, received: PingFrame) -> None:
        if "ACK" in received.flags:
            self.pongs += 1
        else:
            self.pings += 1
            self.send(frame(PingFrame(0, received.opaque_data, flags=["ACK"])))

    def _take_settings(self, received: SettingsFrame) -> None:
        if "ACK" in received.flags:
            self.settings_acked += 1
        else:
            self.settings = dict(received.settings)
            self.send(frame(SettingsFrame(0, flags=["ACK"])))


def frame(each: Frame) -> bytes:
    """Serialize one frame."""
    return bytes(each.serialize())


def data(stream: int, body: bytes, *, ended: bool = False, size: int = PIECE) -> bytes:
    """Cut a body into DATA frames."""
    pieces: Sequence[bytes] = [body[start : start + size] for start in range(0, len(body), size)] or [b""]
    frames = [DataFrame(stream, piece) for piece in pieces]
    if ended:
        frames[-1].flags.add("END_STREAM")
    return b"".join(map(frame, frames))


def reset(stream: int) -> bytes:
    """Cancel a call."""
    return frame(RstStreamFrame(stream, CANCEL))


def ping() -> bytes:
    """Ask for a pong."""
    return frame(PingFrame(0, b"pointsmn"))


def open_window(stream: int, more: int) -> bytes:
    """Let the server send more."""
    return frame(WindowUpdateFrame(stream, more))


@contextmanager
def connected(address: str, settings: Mapping[int, int] = MappingProxyType({})) -> Iterator[Connection]:
    """Connect, and hang up at the end."""
    connection = Connection(address, settings)
    try:
        yield connection
    finally:
        connection.close()
