"""Drives probes: starts one of each kind, gives it targets, and waits for what its calls are answered."""

import itertools
import json
import os
import subprocess
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

import grpc

from pointsman_server.embedded.tied import tied_to_this_process
from tests.support.processes import clean_environ

PATIENCE_SECONDS = 30.0
MOST_ERRORS = 1 << 20
CODES = {code.value[0]: code for code in grpc.StatusCode}

Counts = Mapping[tuple[grpc.StatusCode, str], int]


@dataclass(frozen=True, slots=True)
class Answer:
    """How a call ended: its status, its text, and the id of the backend; ``began`` and ``at`` in unix nanoseconds.

    ``before``: how many calls had the answer before, where this one is another; ``last``: when the last of them began.
    """

    code: grpc.StatusCode
    backend: str
    text: str
    began: int
    at: int
    before: int = 0
    last: int = 0

    @classmethod
    def read(cls, line: Mapping[str, Any]) -> Self:
        """Read a line of a probe."""
        code = CODES[line["code"]]
        return cls(
            code,
            line["backend"],
            line.get("text", ""),
            line["began"],
            line["at"],
            line.get("before", 0),
            line.get("last", 0),
        )

    def __str__(self) -> str:
        return f"{self.code.name} {self.backend}{self.text}"


class Probe:
    """A process that calls without stop. ``kind`` names the client."""

    def __init__(self, kind: str, command: Sequence[str], environ: Mapping[str, str]) -> None:
        self.kind = kind
        self._errors = tempfile.TemporaryFile("w+")
        self._process = subprocess.Popen(
            tied_to_this_process(command),
            env=clean_environ() | dict(environ),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
        )
        self._heard = threading.Condition()
        self._changes: dict[str, list[Answer]] = {}
        self._calls: dict[int, Answer] = {}
        self._summaries: dict[int, dict[str, dict[str, int]]] = {}
        self._ready = self._ended = False
        self._numbers = itertools.count(1)
        # A name that is given to another channel means another list of changes: calls of the one before may still end.
        self._channels: dict[str, str] = {}
        self._counted: dict[str, Counter[tuple[grpc.StatusCode, str]]] = {}
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End the process."""
        self._process.kill()
        self._process.wait()
        self._reader.join(PATIENCE_SECONDS)
        for stream in (self._process.stdin, self._process.stdout, self._errors):
            assert stream
            # A process that has died leaves commands unread.
            with suppress(BrokenPipeError):
                stream.close()

    @property
    def errors(self) -> str:
        """What the process has written to stderr."""
        # pread: parent and child share the file offset, which must stay at the end.
        return os.pread(self._errors.fileno(), MOST_ERRORS, 0).decode(errors="replace")

    def wait_until_ready(self) -> None:
        """Wait until it reads commands."""
        self._wait(lambda: self._ready, "it does not start")

    def target(self, name: str, uri: str, *, rate: float = 50, seconds: float = 0, **options: str) -> None:
        """Call ``uri`` ``rate`` times a second, each call lasting ``seconds``, or held for -1.

        ``name`` stands for it from then on.

        ``options``: ``credentials`` (insecure, xds, tls), ``ca`` and ``authority``: see ``probe.py``.
        """
        self.drop(name)
        channel = f"{name}#{next(self._numbers)}"
        with self._heard:
            self._channels[name] = channel
            self._counted[channel] = Counter()
            self._changes[channel] = []
        self._send(
            {
                "do": "target",
                "name": channel,
                "uri": uri,
                "rate": rate,
                "seconds": seconds,
                "credentials": "insecure",
                **options,
            }
        )

    def drop(self, name: str) -> None:
        """Call the target ``name`` no more."""
        if channel := self._channels.pop(name, None):
            self._send({"do": "drop", "name": channel})

    def drop_all(self) -> None:
        """Call nothing any more."""
        for name in list(self._channels):
            self.drop(name)

    def hold(self, name: str) -> int:
        """Begin one call that lasts until ``Backends.release``; return its number."""
        number = next(self._numbers)
        self._send({"do": "call", "id": number, "name": self._channels[name], "seconds": -1})
        return number

    def ended(self, number: int) -> Answer:
        """Wait for the end of a call that ``hold`` began."""
        self._wait(lambda: number in self._calls, f"call {number} does not end")
        return self._calls[number]

    def reset(self, name: str) -> None:
        """Forget what calls of the target ``name`` were answered until now."""
        self._counted[self._channels[name]] = self._count(name)
        with self._heard:
            del self._changes[self._channels[name]][:-1]

    def summary(self, name: str) -> Counts:
        """Return how many calls had which answer, of the target ``name``, since it was made or reset."""
        return self._count(name) - self._counted[self._channels[name]]

    def _count(self, name: str) -> Counter[tuple[grpc.StatusCode, str]]:
        number = next(self._numbers)
        self._send({"do": "summary", "id": number})
        self._wait(lambda: number in self._summaries, "it does not say what it counted")
        counts: Counter[tuple[grpc.StatusCode, str]] = Counter()
        for key, calls in self._summaries.pop(number)[self._channels[name]].items():
            code, _, backend = key.partition(" ")
            counts[CODES[int(code)], backend] = calls
        return counts

    def changes(self, name: str) -> list[Answer]:
        """Return every answer of the target ``name`` that was another than the one before."""
        with self._heard:
            return list(self._changes[self._channels[name]])

    def wait(
        self,
        name: str,
        code: grpc.StatusCode,
        backend: str | None = None,
        *,
        since: int = 0,
        patience: float = PATIENCE_SECONDS,
    ) -> Answer:
        """Wait until calls of ``name`` end with ``code``, at ``backend`` where one is given; return the first of them.

        ``since``: in unix nanoseconds, when it ended at the earliest. Raises AssertionError when that does not happen
        within ``patience`` seconds.
        """
        changes = self._changes[self._channels[name]]

        def holds() -> bool:
            last = changes[-1] if changes else None
            return last is not None and last.code is code and backend in (None, last.backend) and last.at >= since

        self._wait(holds, lambda: f"{name}: {code.name} {backend or ''} is missing; {_said(changes)}", patience)
        return changes[-1]

    def calls(self, name: str) -> int:
        """Return how many calls of the target ``name`` have ended."""
        return sum(self.summary(name).values())

    def wait_for_calls(self, name: str, count: int) -> None:
        """Wait until ``count`` calls of ``name`` have ended, all in all, however slowly."""
        ended, heard = 0, time.monotonic()
        while (now := self.calls(name)) < count:
            if now > ended:
                ended, heard = now, time.monotonic()
            assert time.monotonic() < heard + PATIENCE_SECONDS, f"{self.kind}: calls of {name} do not end"
            time.sleep(0.02)

    def _send(self, command: Mapping[str, object]) -> None:
        assert self._process.stdin
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def _wait(self, holds: Callable[[], bool], message: str | Callable[[], str], patience: float = 0) -> None:
        with self._heard:
            self._heard.wait_for(lambda: holds() or self._ended, patience or PATIENCE_SECONDS)
            if holds():
                return
            text = message if isinstance(message, str) else message()
            ending = f"; the process has ended: {self.errors[-2000:]}" if self._ended else ""
        raise AssertionError(f"{self.kind}: {text}{ending}")

    def _read(self) -> None:
        assert self._process.stdout
        for text in self._process.stdout:
            line = json.loads(text)
            with self._heard:
                self._take(line)
                self._heard.notify_all()
        with self._heard:
            self._ended = True
            self._heard.notify_all()

    def _take(self, line: dict[str, Any]) -> None:
        match line["say"]:
            case "ready":
                self._ready = True
            case "change":
                self._changes[line["name"]].append(Answer.read(line))
            case "call":
                self._calls[line["id"]] = Answer.read(line)
            case "summary":
                self._summaries[line["id"]] = line["counts"]
            case "error":
                self._changes[line["name"]].append(Answer(grpc.StatusCode.UNKNOWN, "", line["text"], 0, 0))


def _said(changes: Sequence[Answer]) -> str:
    if not changes:
        return "no call has ended"
    return "the last answers were " + ", ".join(map(str, changes[-3:]))
