"""HTTP/2 spoken by hand, for headers that no gRPC library would send."""

import socket
from dataclasses import dataclass

from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import ConnectionTerminated, Event, ResponseReceived, StreamEnded, StreamReset, TrailersReceived


@dataclass(frozen=True)
class Outcome:
    """What a call came to: its ``grpc-status`` if it got one, or that the stream or the connection was ended."""

    grpc_status: str = ""
    ended_by_server: bool = False

    @property
    def refused(self) -> bool:
        """Whether it was turned away, in whichever way; 16 is UNAUTHENTICATED."""
        return self.grpc_status == "16" or (not self.grpc_status and self.ended_by_server)


def call_with_header(port: int, path: str, authorization: bytes) -> Outcome:
    """Make a unary call with an empty message and the raw bytes of ``authorization``."""
    config = H2Configuration(client_side=True, validate_outbound_headers=False, header_encoding=None)
    connection = H2Connection(config)
    connection.initiate_connection()
    headers = {
        b":method": b"POST",
        b":scheme": b"http",
        b":path": path.encode(),
        b":authority": b"localhost",
        b"content-type": b"application/grpc",
        b"te": b"trailers",
        b"authorization": authorization,
    }
    connection.send_headers(1, list(headers.items()))
    connection.send_data(1, b"\x00\x00\x00\x00\x00", end_stream=True)
    with socket.create_connection(("127.0.0.1", port), timeout=30) as wire:
        wire.sendall(connection.data_to_send())
        return _outcome(wire, connection)


def _outcome(wire: socket.socket, connection: H2Connection) -> Outcome:
    status = ""
    while data := wire.recv(65536):
        for event in connection.receive_data(data):
            status = _status(event) or status
            if isinstance(event, StreamEnded | StreamReset | ConnectionTerminated):
                return Outcome(status, ended_by_server=True)
        wire.sendall(connection.data_to_send())
    return Outcome(status, ended_by_server=True)


def _status(event: Event) -> str:
    if not isinstance(event, ResponseReceived | TrailersReceived):
        return ""
    return next((_text(value) for name, value in event.headers or () if _text(name) == "grpc-status"), "")


def _text(value: bytes | str) -> str:
    return value.decode() if isinstance(value, bytes) else value
