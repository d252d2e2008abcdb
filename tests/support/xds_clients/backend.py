"""Backends: small gRPC servers that echo their id, several in one process, plaintext or with TLS.

A program of its own, which imports nothing of ours. Commands on stdin, and answers on stdout, are JSON lines:

- ``{"do": "open", "id", "address", "cert", "key"}``: listen at an address, whose port may be 0; with the files of a
  certificate where those are named. Answer: ``{"id", "port"}``.
- ``{"do": "close", "id"}``: stop listening, and end every connection at once. Answer: ``{"id", "port": 0}``.
- ``{"do": "held", "id"}``: wait for a call that is to be held. ``{"do": "release", "id"}``: answer those that are held.
  Answer: the same.

The request of a call is the number of seconds to wait, or ``-1`` to be held; the response is the id, followed by what
the method has before ``/pointsman.test.Echo/Echo``. The end of stdin ends the process.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc

METHOD = "/pointsman.test.Echo/Echo"
# Above its bound, 1,000 unless it is told otherwise, grpcio cancels calls that wait for Python.
PENDING_CALLS = 1_000_000


class Echo(grpc.GenericRpcHandler):
    """Answers each method that ends like ours."""

    def __init__(self, name: str) -> None:
        self._name = name
        self._released = asyncio.Event()
        self.held = asyncio.Semaphore(0)

    def release(self) -> None:
        """Answer the calls that are held."""
        self._released.set()
        self._released = asyncio.Event()

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """Give the handler of a method; none for others."""
        prefix, found, rest = details.method.rpartition(METHOD)
        if not found or rest:
            return None
        reply = f"{self._name}{prefix}".encode()

        async def echo(request: bytes, _: object) -> bytes:
            seconds = float(request)
            if seconds < 0:
                self.held.release()
                await self._released.wait()
            elif seconds:
                await asyncio.sleep(seconds)
            return reply

        return grpc.unary_unary_rpc_method_handler(echo)


def listen(server: grpc.aio.Server, command: dict[str, Any]) -> int:
    """Bind a server to its address. Raises RuntimeError where that is in use."""
    if command.get("cert"):
        pair = (Path(command["key"]).read_bytes(), Path(command["cert"]).read_bytes())
        return int(server.add_secure_port(command["address"], grpc.ssl_server_credentials([pair])))
    return int(server.add_insecure_port(command["address"]))


async def open_server(command: dict[str, Any], echo: Echo) -> tuple[grpc.aio.Server, int]:
    """Start one server. Raises RuntimeError where its address is in use."""
    # Without SO_REUSEPORT a port that is in use is an error.
    pending = [(f"grpc.server.max_pending_requests{limit}", PENDING_CALLS) for limit in ("", "_hard_limit")]
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0), *pending])
    server.add_generic_rpc_handlers((echo,))
    port = listen(server, command)
    await server.start()
    return server, port


async def main() -> None:
    """Obey commands until stdin ends."""
    servers: dict[str, grpc.aio.Server] = {}
    echoes: dict[str, Echo] = {}
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while text := await reader.readline():
        command = json.loads(text)
        name, port = command["id"], 0
        match command["do"]:
            case "open":
                echoes[name] = Echo(name)
                servers[name], port = await open_server(command, echoes[name])
            case "close":
                await servers.pop(name).stop(0)
            case "held":
                await echoes[name].held.acquire()
            case "release":
                echoes[name].release()
        sys.stdout.write(json.dumps({"id": name, "port": port}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
