"""Adds services to a gRPC server that have no generated code."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import grpc


@dataclass(frozen=True, slots=True)
class Behaviour:
    """One method: what it does, how its requests are decoded, and how its responses are encoded, unless they are."""

    do: Callable[..., Any]
    parse: Callable[[bytes], Any]
    encode: Callable[[Any], bytes] = bytes
    streaming: bool = False

    def handler(self) -> Any:
        """Return the handler of grpcio: unary, or with streams on both sides."""
        make = grpc.stream_stream_rpc_method_handler if self.streaming else grpc.unary_unary_rpc_method_handler
        return make(self.do, self.parse, self.encode)


def register(server: Any, service: str, methods: Mapping[str, Behaviour]) -> None:
    """Add a service to a gRPC server."""
    handlers = {name: method.handler() for name, method in methods.items()}
    server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
    server.add_registered_method_handlers(service, handlers)


def unimplemented(text: str, *, streaming: bool = False) -> Behaviour:
    """Return a method that answers UNIMPLEMENTED; ``text`` says what to call in its place."""

    async def refuse(_requests: Any, context: Any) -> None:
        await context.abort(grpc.StatusCode.UNIMPLEMENTED, text)

    return Behaviour(refuse, bytes, streaming=streaming)
