"""The level of the log while the server runs: a signal turns debug on, and off again."""

import asyncio
import os
import signal
from collections.abc import Callable

from pointsman_server.telemetry import logs
from pointsman_server.telemetry.logs import Format, Level

log = logs.get_logger(__name__)

# Envoy takes SIGUSR1 itself: it opens its access logs again.
SIGNAL = signal.SIGUSR2
# Set for a worker that starts after a switch.
SWITCHED_AT_START = "POINTSMAN_INTERNAL_LOG_LEVEL_SWITCHED"


class LogLevel:
    """Writes the log at the level of the settings, or at debug; where that is the level, at info instead."""

    def __init__(self, level: Level, log_format: Format) -> None:
        self._levels: tuple[Level, Level] = (level, "info" if level == "debug" else "debug")
        self._format: Format = log_format
        self.switched = False

    def begin(self) -> None:
        """Configure the log for a process that starts."""
        self.switched = SWITCHED_AT_START in os.environ
        logs.configure(self.level, self._format)

    def switch(self) -> None:
        """Change to the other of the two levels."""
        self.switched = not self.switched
        logs.configure(self.level, self._format)
        log.warning("log level changed", log_level=self.level)

    @property
    def level(self) -> Level:
        """The level in force."""
        return self._levels[self.switched]


def block() -> None:
    """Let the signal wait, in this thread and in those and the processes that it starts, until each takes it."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {SIGNAL})


def unblock() -> None:
    """Take the signal in this thread, also one that waited."""
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {SIGNAL})


def on_signal(loop: asyncio.AbstractEventLoop, switch: Callable[[], None]) -> None:
    """Call ``switch`` at each signal. In the main thread."""
    loop.add_signal_handler(SIGNAL, switch)
    unblock()
