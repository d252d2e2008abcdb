"""A load generator for requests that differ: unary gRPC calls over HTTP/2, prepared as far as can be.

``python -m tests.bench.driver`` reads a ``Job`` as JSON from stdin and prints an ``Outcome`` as JSON. h2load is faster
and repeats one request; this one sends each of many, as Zipf's law or a Create needs, and looks at every status.
Header compression keeps no state (RFC 7541, a table of size 0), so that the headers of every call are the same bytes.
"""

import json
import resource
import selectors
import socket
import struct
import sys
import time
from collections import deque
from dataclasses import asdict, dataclass, field
from pathlib import Path

from hpack import Decoder, Encoder

PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
DATA, HEADERS, RST_STREAM, SETTINGS, PING, GOAWAY, WINDOW_UPDATE = 0, 1, 3, 4, 6, 7, 8
END_STREAM, ACK, END_HEADERS = 1, 1, 4
LARGEST_WINDOW = 2**31 - 1
FIRST_WINDOW = 65_535
REPLENISH = 2**29
HEAD = 9
LARGEST_FRAME = 16_384
PATIENCE_SECONDS = 30.0


class DriveFailed(Exception):
    """A call was not OK, or the server hung up."""


@dataclass(frozen=True, slots=True)
class Job:
    """What to do. ``bodies``: a file of messages as gRPC frames them, sent in order; round and round if ``again``.

    It ends after ``seconds``, or when there are no bodies left. ``keep`` puts the last answer into the outcome.
    """

    address: str
    method: str
    bodies: str
    seconds: float
    connections: int = 4
    in_flight: int = 32
    again: bool = True
    headers: dict[str, str] = field(default_factory=dict)
    keep: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """What came of it: seconds of wall clock and of processor, latencies of every call in microseconds."""

    calls: int
    seconds: float
    cpu: float
    microseconds: list[int]
    answer: str = ""


def split(framed: bytes) -> list[bytes]:
    """Cut a file into its messages, each still with its prefix."""
    bodies, place = [], 0
    while place < len(framed):
        (length,) = struct.unpack_from(">I", framed, place + 1)
        bodies.append(framed[place : place + 5 + length])
        place += 5 + length
    return bodies


def frame(kind: int, flags: int, stream: int, payload: bytes) -> bytes:
    """Write one frame (RFC 9113, section 4.1)."""
    return struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream) + payload


class Wire:
    """One connection: ``send`` begins calls, ``receive`` gives the streams that ended."""

    def __init__(self, job: Job) -> None:
        host, _, port = job.address.rpartition(":")
        self.socket = socket.create_connection((host, int(port)), PATIENCE_SECONDS)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.started: dict[int, float] = {}
        self.answer = b""
        self._keep = job.keep
        self._headers = _headers(job)
        self._statuses: dict[bytes, str] = {}
        self._next = 1
        self._unread = b""
        self._taken = 0
        self._window = FIRST_WINDOW
        self._waiting: deque[bytes] = deque()
        settings = struct.pack(">HIHI", 1, 0, 4, LARGEST_WINDOW)  # no header table, and windows that never fill
        more = struct.pack(">I", LARGEST_WINDOW - FIRST_WINDOW)
        self.socket.sendall(PREFACE + frame(SETTINGS, 0, 0, settings) + frame(WINDOW_UPDATE, 0, 0, more))

    @property
    def busy(self) -> bool:
        """Whether a call is open, or waits until the server takes more."""
        return bool(self.started or self._waiting)

    def send(self, bodies: list[bytes]) -> None:
        """Begin a call for each body, as soon as the window of the connection lets it through."""
        self._waiting.extend(bodies)
        parts = []
        while self._waiting and len(self._waiting[0]) <= self._window:
            body = self._waiting.popleft()
            self._window -= len(body)
            stream, self._next = self._next, self._next + 2
            parts.append(frame(HEADERS, END_HEADERS, stream, self._headers))
            for start in range(0, len(body), LARGEST_FRAME):
                last = start + LARGEST_FRAME >= len(body)
                parts.append(frame(DATA, END_STREAM * last, stream, body[start : start + LARGEST_FRAME]))
            self.started[stream] = time.perf_counter()
        if parts:
            self.socket.sendall(b"".join(parts))

    def receive(self) -> list[int]:
        """Read what is there. Returns the streams that ended OK. Raises DriveFailed."""
        received = self.socket.recv(1 << 18)
        if not received:
            raise DriveFailed("the server hung up")
        buffer, place, ended = self._unread + received, 0, []
        while len(buffer) - place >= HEAD:
            length = int.from_bytes(buffer[place : place + 3], "big")
            end = place + HEAD + length
            if len(buffer) < end:
                break
            kind, flags = buffer[place + 3], buffer[place + 4]
            stream = int.from_bytes(buffer[place + 5 : place + 9], "big")
            payload = buffer[place + HEAD : end]
            if kind == HEADERS and flags & END_STREAM:
                self._check(payload)
                ended.append(stream)
            elif kind == DATA:
                self._take_data(payload)
            else:
                self._take(kind, flags, stream, payload)
            place = end
        self._unread = buffer[place:]
        return ended

    def _take_data(self, payload: bytes) -> None:
        self._taken += len(payload)
        if self._keep:
            self.answer += payload
        if self._taken > REPLENISH:
            self.socket.sendall(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", self._taken)))
            self._taken = 0

    def _take(self, kind: int, flags: int, stream: int, payload: bytes) -> None:
        if kind == WINDOW_UPDATE and stream == 0:
            self._window += int.from_bytes(payload, "big")
            self.send([])
        elif kind in (SETTINGS, PING) and not flags & ACK:
            self.socket.sendall(frame(kind, ACK, 0, payload if kind == PING else b""))
        elif kind in (RST_STREAM, GOAWAY):
            raise DriveFailed(f"the server ended a call by {'RST_STREAM' if kind == RST_STREAM else 'GOAWAY'}")

    def _check(self, trailers: bytes) -> None:
        if trailers not in self._statuses:
            decoded = {_text(name): _text(value) for name, value in Decoder().decode(trailers)}
            status = decoded.get("grpc-status", "none")
            self._statuses[trailers] = "" if status == "0" else f"status {status}: {decoded.get('grpc-message')}"
        if problem := self._statuses[trailers]:
            raise DriveFailed(problem)


class Drive:
    """Carries out one job."""

    def __init__(self, job: Job) -> None:
        self._job = job
        self._bodies = split(Path(job.bodies).read_bytes())
        self._place = 0
        self._latencies: list[int] = []

    def run(self) -> Outcome:
        """Keep ``in_flight`` calls open until the end, and wait for the last of them. Raises DriveFailed, OSError."""
        job = self._job
        selector = selectors.DefaultSelector()
        wires = [Wire(job) for _ in range(job.connections)]
        begun, cpu = time.perf_counter(), _cpu()
        for wire in wires:
            selector.register(wire.socket, selectors.EVENT_READ, wire)
            self._send(wire, job.in_flight // job.connections)
        while any(wire.busy for wire in wires):
            ready = selector.select(PATIENCE_SECONDS)
            if not ready:
                raise DriveFailed("no answer came for a long time")
            for key, _ in ready:
                self._turn(key.data, begun + job.seconds)
        seconds = time.perf_counter() - begun
        answer = next((wire.answer for wire in wires if wire.answer), b"")
        for wire in wires:
            wire.socket.close()
        return Outcome(len(self._latencies), seconds, _cpu() - cpu, self._latencies, answer.hex())

    def _turn(self, wire: Wire, end: float) -> None:
        ended = wire.receive()
        now = time.perf_counter()
        self._latencies += [round((now - wire.started.pop(stream)) * 1e6) for stream in ended]
        if now < end:
            self._send(wire, len(ended))

    def _send(self, wire: Wire, calls: int) -> None:
        bodies = self._bodies[self._place : self._place + calls]
        self._place += len(bodies)
        if len(bodies) < calls and self._job.again:
            self._place = calls - len(bodies)
            bodies += self._bodies[: self._place]
        if bodies:
            wire.send(bodies)


def _headers(job: Job) -> bytes:
    encoder = Encoder()
    encoder.header_table_size = 0
    headers = {
        ":method": "POST",
        ":scheme": "http",
        ":path": f"/{job.method}",
        ":authority": job.address,
        "content-type": "application/grpc",
        "te": "trailers",
        **job.headers,
    }
    encoder.encode([])  # says once that the table is empty; every later block stands alone
    return bytes(encoder.encode([(name, value, True) for name, value in headers.items()], huffman=False))


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value


def _cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> int:
    """Do the job on stdin."""
    try:
        outcome = Drive(Job(**json.load(sys.stdin))).run()
    except (DriveFailed, OSError) as error:
        sys.stderr.write(f"{error}\n")
        return 1
    json.dump(asdict(outcome), sys.stdout)
    return 0


if __name__ == "__main__":
    sys.exit(main())
