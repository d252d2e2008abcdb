"""Real gRPC servers that say their names: where the calls of a channel end up."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Any, Self

import grpc

PATIENCE_SECONDS = 20.0
SERVICE = "test.Echo"


@dataclass
class EchoBackend:
    """A server that answers each request with its name and the request, and each stream with that for each request.

    A request ``hold`` is answered once ``released`` is set.
    """

    name: str
    credentials: grpc.ServerCredentials | None = None
    host: str = "127.0.0.1"
    released: threading.Event = field(default_factory=threading.Event)
    held: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released for each request ``hold`` that has arrived."""
    metadata: list[dict[str, Any]] = field(default_factory=list)
    count: int = 0

    def __enter__(self) -> Self:
        self._server = grpc.server(ThreadPoolExecutor(16), options=[("grpc.so_reuseport", 0)])
        handlers: dict[str, Any] = {
            "UnaryUnary": grpc.unary_unary_rpc_method_handler(self._one),
            "UnaryStream": grpc.unary_stream_rpc_method_handler(self._several),
            "StreamUnary": grpc.stream_unary_rpc_method_handler(self._join),
            "StreamStream": grpc.stream_stream_rpc_method_handler(self._each),
        }
        self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        if self.credentials is None:
            self.port = self._server.add_insecure_port(f"{self.host}:0")
        else:
            self.port = self._server.add_secure_port(f"{self.host}:0", self.credentials)
        self._server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.released.set()
        self._server.stop(0).wait(PATIENCE_SECONDS)

    @property
    def url(self) -> str:
        """Where it is called."""
        return f"http://{self.host}:{self.port}"

    def _answer(self, request: bytes) -> bytes:
        self.count += 1
        if request == b"hold":
            self.held.release()
            self.released.wait(PATIENCE_SECONDS)
        return self.name.encode() + b" " + request

    def _one(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.metadata.append(dict(context.invocation_metadata()))
        if request == b"not found":
            context.abort(grpc.StatusCode.NOT_FOUND, f"{self.name} has none")
        return self._answer(request)

    def _several(self, request: bytes, _: grpc.ServicerContext) -> Iterator[bytes]:
        yield self.name.encode() + b" first"
        yield self._answer(request)

    def _join(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> bytes:
        return self._answer(b"+".join(requests))

    def _each(self, requests: Iterator[bytes], _: grpc.ServicerContext) -> Iterator[bytes]:
        for request in requests:
            yield self._answer(request)


def threads_besides_servers(before: set[threading.Thread]) -> set[str]:
    """Return the names of the threads that have come, but for those of pools, which grow with the calls of a server."""
    new = {each.name for each in threading.enumerate() if each not in before}
    return {name for name in new if not name.startswith(("ThreadPoolExecutor", "asyncio_"))}


class EchoStub:
    """Calls an echo backend through a channel, synchronous or not."""

    def __init__(self, channel: Any) -> None:
        self.unary_unary = channel.unary_unary(f"/{SERVICE}/UnaryUnary")
        self.unary_stream = channel.unary_stream(f"/{SERVICE}/UnaryStream")
        self.stream_unary = channel.stream_unary(f"/{SERVICE}/StreamUnary")
        self.stream_stream = channel.stream_stream(f"/{SERVICE}/StreamStream")
