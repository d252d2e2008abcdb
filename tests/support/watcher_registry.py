"""``ports.WatcherRegistry`` in memory."""

from collections.abc import Callable, Sequence

from pointsman_server.ports.store import Clock
from pointsman_server.ports.watcher_registry import (
    OpenWatch,
    RegisteredWatch,
    RegistryUnavailable,
    Report,
    WatchName,
)


class MemoryWatcherRegistry:
    """One for all servers of a test. ``now`` is in seconds; every call fails while ``down``."""

    def __init__(self, now: Callable[[], float], *, ttl: float = 15.0, inquiry_ttl: float = 10.0) -> None:
        self.down = False
        self._now = now
        self._ttl, self._inquiry_ttl = ttl, inquiry_ttl
        self._servers: dict[str, dict[WatchName, OpenWatch]] = {}
        self._until: dict[str, float] = {}
        self._applied: dict[tuple[str, WatchName], Clock] = {}
        self._inquiry: tuple[Clock, float] | None = None

    async def publish(self, server: str, opened: Sequence[OpenWatch], closed: Sequence[WatchName]) -> int:
        self._check()
        of_server = self._servers.setdefault(server, {})
        for name in closed:
            of_server.pop(name, None)
            self._applied.pop((server, name), None)
        of_server.update((watch.name, watch) for watch in opened)
        self._until[server] = self._now() + self._ttl
        return len(of_server)

    async def withdraw(self, server: str) -> None:
        self._check()
        self._remove(server)

    async def report(self, reports: Sequence[Report]) -> Sequence[bool]:
        self._check()
        return [self._report(*report) for report in reports]

    async def applied(self, server: str, names: Sequence[WatchName]) -> Sequence[Clock | None]:
        self._check()
        return [self._applied.get((server, name)) for name in names]

    async def watches(self) -> Sequence[RegisteredWatch]:
        self._check()
        return [
            RegisteredWatch(server, watch, self._applied.get((server, name)))
            for server, of_server in self._servers.items()
            for name, watch in of_server.items()
        ]

    async def inquire(self, clock: Clock) -> None:
        self._check()
        before = await self.inquiry()
        if before is not None and before.epoch == clock.epoch and before.revision > clock.revision:
            clock = before
        self._inquiry = clock, self._now() + self._inquiry_ttl

    async def inquiry(self) -> Clock | None:
        self._check()
        return self._inquiry[0] if self._inquiry and self._inquiry[1] > self._now() else None

    def lose_everything(self) -> None:
        """Be empty, as Redis after a flush."""
        self._servers.clear()
        self._applied.clear()
        self._inquiry = None

    def _report(self, name: WatchName, applied: Clock) -> bool:
        servers = [server for server, of_server in self._servers.items() if name in of_server]
        for server in servers:
            before = self._applied.get((server, name))
            if before is None or before.epoch != applied.epoch or before.revision < applied.revision:
                self._applied[server, name] = applied
        return bool(servers)

    def _remove(self, server: str) -> None:
        for name in self._servers.pop(server, {}):
            self._applied.pop((server, name), None)

    def _check(self) -> None:
        if self.down:
            raise RegistryUnavailable
        for server in [server for server in self._servers if self._until[server] <= self._now()]:
            self._remove(server)
