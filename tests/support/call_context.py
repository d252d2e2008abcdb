"""The context of a gRPC call, for tests of handlers and interceptors without a network."""

from collections.abc import Callable
from typing import Any

import grpc


class CallContext:
    """Records how a call ends. ``code`` is what a handler has set itself; a stream has the ``requests``."""

    def __init__(self, *metadata: tuple[str, str], remaining: float | None = 60.0, code: Any = None) -> None:
        self.metadata = metadata
        self.remaining = remaining
        self.status: tuple[grpc.StatusCode, str] | None = None
        self.trailers: dict[str, str | bytes] = {}
        self.initial: dict[str, str | bytes] = {}
        self.written: list[Any] = []
        self.requests: list[Any] = []
        self._code = code
        self._callbacks: list[Callable[[Any], None]] = []

    def invocation_metadata(self) -> tuple[tuple[str, str], ...]:
        return self.metadata

    def peer(self) -> str:
        return "ipv4:127.0.0.1:1"

    def time_remaining(self) -> float | None:
        return self.remaining

    def code(self) -> Any:
        return self.status[0] if self.status else self._code

    def set_trailing_metadata(self, trailers: Any) -> None:
        self.trailers = dict(trailers)

    async def send_initial_metadata(self, metadata: Any) -> None:
        assert not self.initial, "they are sent once"
        self.initial = dict(metadata)

    def add_done_callback(self, callback: Callable[[Any], None]) -> None:
        self._callbacks.append(callback)

    async def read(self) -> Any:
        return self.requests.pop(0) if self.requests else grpc.aio.EOF

    async def write(self, response: Any) -> None:
        self.written.append(response)

    async def abort(self, code: grpc.StatusCode, details: str) -> None:
        self.status = (code, details)
        raise grpc.aio.AbortError
