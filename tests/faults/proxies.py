"""TCP proxies in a process of their own, so that the load does not slow them: three for each server, and one for all.

The parent writes JSON lines ``{"name": …, "do": "open" | "cut" | "mend" | "delay", …}`` and reads one line for each.
The process ends with its stdin.
"""

import asyncio
import contextlib
import json
import subprocess
import sys
from collections.abc import Sequence
from typing import Any


class Proxy:
    """One address before another one, or before several: then each connection goes to the next one that accepts it.

    It can refuse and end connections, and hold back what passes, each way.
    """

    def __init__(self, targets: Sequence[int]) -> None:
        self._targets = list(targets)
        self._server: asyncio.Server | None = None
        self._pumps: set[asyncio.Task[None]] = set()
        self.port = 0
        self.there = self.back = 0.0

    async def mend(self) -> None:
        """Accept connections, on the same port every time."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port, reuse_address=True)
            self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        """Refuse connections, and end those that are open."""
        if self._server is not None:
            self._server.close()
            self._server = None
        for pump in list(self._pumps):
            pump.cancel()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if (connection := await self._connect()) is None:
            writer.transport.abort()
            return
        there_reader, there_writer = connection
        for source, sink, way in ((reader, there_writer, "there"), (there_reader, writer, "back")):
            pump = asyncio.create_task(self._pump(source, sink, way))
            self._pumps.add(pump)
            pump.add_done_callback(self._pumps.discard)

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter] | None:
        for _ in self._targets:
            self._targets.append(target := self._targets.pop(0))
            with contextlib.suppress(OSError):
                return await asyncio.open_connection("127.0.0.1", target)
        return None

    async def _pump(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, way: str) -> None:
        with contextlib.suppress(OSError):
            try:
                while data := await source.read(65536):
                    if delay := self.there if way == "there" else self.back:
                        await asyncio.sleep(delay)
                    sink.write(data)
                    await sink.drain()
            finally:
                sink.transport.abort()


class Proxies:
    """The parent's handle: starts the process, and tells it what to do."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.proxies"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    def open(self, name: str, *targets: int) -> int:
        """Open a proxy before ports of this machine; gives its own port."""
        return int(self.do(name, "open", targets=targets))

    def do(self, name: str, what: str, **more: float | Sequence[int]) -> Any:
        """Do something to a proxy and wait until it is done."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write(json.dumps({"name": name, "do": what, **more}) + "\n")
        self._process.stdin.flush()
        return json.loads(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


async def serve() -> None:
    """Obey stdin until it ends."""
    proxies: dict[str, Proxy] = {}
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        order = json.loads(line)
        if order["do"] == "open":
            proxies[order["name"]] = Proxy(order["targets"])
        proxy = proxies[order["name"]]
        if order["do"] == "delay":
            proxy.there, proxy.back = order["there"], order["back"]
        elif order["do"] == "cut":
            await proxy.cut()
        else:
            await proxy.mend()
        print(json.dumps(proxy.port), flush=True)


if __name__ == "__main__":
    asyncio.run(serve())
