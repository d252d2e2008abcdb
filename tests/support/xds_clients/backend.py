"""Backends: small gRPC servers that echo their id, several in one process, plaintext or with TLS.

A program of its own, which imports nothing of ours. Commands on stdin, and answers on stdout, are JSON lines:

- ``{"do": "open", "id", "address", "cert", "key"}``: listen at an address, whose port may be 0; with the files of a
  certificate where those are named. Answer: ``{"id", "port"}``.
- ``{"do": "close", "id"}``: stop listening, and end every connection at once. Answer: ``{"id", "port": 0}``.

The request of a call is the number of seconds to wait; the response is the id, followed by what the method has before
``/pointsman.test.Echo/Echo``. The end of stdin ends the process.
"""

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc

METHOD = "/pointsman.test.Echo/Echo"


class Echo(grpc.GenericRpcHandler):
    """Answers each method that ends like ours."""

    def __init__(self, name: str) -> None:
        self._name = name

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        """Give the handler of a method; none for others."""
        prefix, found, rest = details.method.rpartition(METHOD)
        if not found or rest:
            return None
        reply = f"{self._name}{prefix}".encode()

        async def echo(request: bytes, _: object) -> bytes:
            if seconds := float(request):
                await asyncio.sleep(seconds)
            return reply

        return grpc.unary_unary_rpc_method_handler(echo)


def listen(server: grpc.aio.Server, command: dict[str, Any]) -> int:
    """Bind a server to its address. Raises RuntimeError where that is in use."""
    if command.get("cert"):
        pair = (Path(command["key"]).read_bytes(), Path(command["cert"]).read_bytes())
        return int(server.add_secure_port(command["address"], grpc.ssl_server_credentials([pair])))
    return int(server.add_insecure_port(command["address"]))


async def open_server(command: dict[str, Any]) -> tuple[grpc.aio.Server, int]:
    """Start one server. Raises RuntimeError where its address is in use."""
    # Without SO_REUSEPORT a port that is in use is an error.
    server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
    server.add_generic_rpc_handlers((Echo(command["id"]),))
    port = listen(server, command)
    await server.start()
    return server, port


async def main() -> None:
    """Obey commands until stdin ends."""
    servers: dict[str, grpc.aio.Server] = {}
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while text := await reader.readline():
        command = json.loads(text)
        port = 0
        if command["do"] == "open":
            servers[command["id"]], port = await open_server(command)
        else:
            await servers.pop(command["id"]).stop(0)
        sys.stdout.write(json.dumps({"id": command["id"], "port": port}) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    asyncio.run(main())
