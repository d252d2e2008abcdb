"""A probe: calls an echo service by grpcio without stop, and says when the answer becomes another one.

A program of its own, which imports nothing of ours. Probes in other languages, ``go/main.go`` and ``node/probe.js``,
have the same protocol, of JSON lines. The bootstrap comes by the environment, as each library reads it. On stdin:

- ``{"do": "target", "name", "uri", "rate", "seconds", "credentials", "ca", "authority"}``: open a channel under a
  name, in place of the one before, and begin ``rate`` calls a second on it, each of which waits for ``seconds`` in the
  backend. ``credentials``: insecure, xds, or tls with the file ``ca``.
- ``{"do": "drop", "name"}``: close it when its calls have ended.
- ``{"do": "call", "id", "name", "seconds"}``: one call more, which is not counted.
- ``{"do": "summary", "id"}``, and ``{"do": "stop"}``, which ends the process, as the end of stdin does.

On stdout, with times in unix nanoseconds:

- ``{"say": "ready"}``, once; ``{"say": "error", "name", "text"}``: a channel cannot be opened.
- ``{"say": "change", "name", "code", "backend", "text", "began", "at", "before", "last"}``: the status and the backend
  of a call, which began and ended then, differ from those of the call before it; that answer was given ``before``
  times, the last time to a call that began at ``last``.
- ``{"say": "call", "id", …}``: how a single call ended.
- ``{"say": "summary", "id", "counts": {name: {"code backend": calls}}}``.
"""

import asyncio
import json
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import grpc.experimental

METHOD = "/pointsman.test.Echo/Echo"
DEADLINE_SECONDS = 20.0
BEHIND_SECONDS = 1.0
# Calls of a target under way at a time. A machine that cannot answer at the rate answers fewer calls, not none.
MOST_OPEN = 64

Line = dict[str, Any]


def say(line: Line) -> None:
    """Write one line."""
    sys.stdout.write(json.dumps(line) + "\n")
    sys.stdout.flush()


def open_channel(command: Line) -> grpc.aio.Channel:
    """Open the channel of a target."""
    options = [("grpc.default_authority", command["authority"])] if command.get("authority") else []
    if command["credentials"] == "xds":
        fallback = grpc.experimental.insecure_channel_credentials()  # type: ignore[no-untyped-call]
        return grpc.aio.secure_channel(command["uri"], grpc.xds_channel_credentials(fallback), options)
    if command["credentials"] == "tls":
        credentials = grpc.ssl_channel_credentials(Path(command["ca"]).read_bytes())
        return grpc.aio.secure_channel(command["uri"], credentials, options)
    return grpc.aio.insecure_channel(command["uri"], options)


class Target:
    """One channel, the calls on it, and what they were answered."""

    def __init__(self, command: Line) -> None:
        self._name = command["name"]
        self._seconds = command.get("seconds", 0)
        self._channel = open_channel(command)
        self._echo: grpc.aio.UnaryUnaryMultiCallable[bytes, bytes] = self._channel.unary_unary(METHOD)
        self._calls: set[asyncio.Task[None]] = set()
        self._last: tuple[int, str] | None = None
        self._run = self._began = 0
        self.counts: dict[str, int] = {}
        self._loop = asyncio.create_task(self._begin(command["rate"])) if command.get("rate") else None

    async def _begin(self, rate: float) -> None:
        """Begin calls at a rate, however long each takes, while fewer than MOST_OPEN are under way."""
        due = time.monotonic()
        while True:
            if len(self._calls) < MOST_OPEN:
                self.start(self._count())
            due = max(due + 1 / rate, time.monotonic() - BEHIND_SECONDS)
            await asyncio.sleep(due - time.monotonic())

    def start(self, work: Any) -> None:
        """Run a call, which ``drop`` waits for."""
        task = asyncio.create_task(work)
        self._calls.add(task)
        task.add_done_callback(self._calls.discard)

    async def single(self, number: int, seconds: float) -> None:
        """Make one call that is not counted, and say how it ended."""
        say({"say": "call", "id": number, **await self._call(seconds)})

    async def _call(self, seconds: float) -> Line:
        began = time.time_ns()
        try:
            reply = await self._echo(str(seconds).encode(), timeout=DEADLINE_SECONDS)
            code, backend, text = 0, reply.decode(), ""
        except grpc.aio.AioRpcError as error:
            code, backend, text = error.code().value[0], "", error.details() or ""
        return {
            "name": self._name,
            "code": code,
            "backend": backend,
            "text": text,
            "began": began,
            "at": time.time_ns(),
        }

    async def _count(self) -> None:
        line = await self._call(self._seconds)
        answer = line["code"], line["backend"]
        if answer != self._last:
            say({"say": "change", **line, "before": self._run, "last": self._began})
            self._last, self._run = answer, 0
        self._run += 1
        self._began = line["began"]
        key = f"{line['code']} {line['backend']}"
        self.counts[key] = self.counts.get(key, 0) + 1

    async def drop(self) -> None:
        """Begin no more calls, and close the channel when those that began have ended."""
        if self._loop:
            self._loop.cancel()
        await asyncio.gather(*self._calls)
        await self._channel.close()


class Probe:
    """The targets, by their names, and the commands."""

    def __init__(self) -> None:
        self._targets: dict[str, Target] = {}
        self._closing: set[asyncio.Task[None]] = set()

    def obey(self, command: Line) -> None:
        """Do what a command says. Raises KeyError for one that is unknown."""
        {"target": self._target, "drop": self._drop, "call": self._call, "summary": self._summary}[command["do"]](
            command
        )

    def _target(self, command: Line) -> None:
        self._drop(command)
        try:
            self._targets[command["name"]] = Target(command)
        except (ValueError, OSError) as error:
            say({"say": "error", "name": command["name"], "text": str(error)})

    def _drop(self, command: Line) -> None:
        if target := self._targets.pop(command["name"], None):
            task = asyncio.create_task(target.drop())
            self._closing.add(task)
            task.add_done_callback(self._closing.discard)

    def _call(self, command: Line) -> None:
        target = self._targets[command["name"]]
        target.start(target.single(command["id"], command["seconds"]))

    def _summary(self, command: Line) -> None:
        counts = {name: target.counts for name, target in self._targets.items()}
        say({"say": "summary", "id": command["id"], "counts": counts})


async def main() -> None:
    """Obey commands until the end."""
    probe = Probe()
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    say({"say": "ready"})
    while text := await reader.readline():
        command = json.loads(text)
        if command["do"] == "stop":
            return
        probe.obey(command)


if __name__ == "__main__":
    asyncio.run(main())
