"""What a channel reads, without a near-cache: tests say which URLs are live."""

import threading
from collections.abc import Callable, Mapping

from pointsman.errors import PointsmanError, RouteInactive


class FakeRoutes:
    """One URL, or one for each sticky key; ``error`` instead, if it is set."""

    key = "team-a/payments/prod/v1"

    def __init__(self, url: str | Mapping[str, str] = "") -> None:
        self._url = url
        self._lock = threading.Lock()
        self._followers: list[Callable[[], None]] = []
        self.error: PointsmanError | None = None
        self.known = True
        """Whether the table can answer; otherwise the server is asked."""
        self.asked: list[tuple[str, float | None]] = []
        self.on_ask: Callable[[], None] = lambda: None
        self.reads = 0
        self.starts = 0

    def set(self, url: str | Mapping[str, str]) -> None:
        """Make other URLs live; nothing is, if there are none."""
        with self._lock:
            self._url = url
        self.changed()

    def changed(self) -> None:
        """Say that the table has changed."""
        for each in tuple(self._followers):
            each()

    @property
    def followers(self) -> int:
        """How many want to know of changes."""
        return len(self._followers)

    def start(self) -> None:
        self.starts += 1

    def find(self, sticky_key: str) -> str | None:
        self.reads += 1
        return self._answer(sticky_key) if self.known else None

    def urls(self) -> frozenset[str] | None:
        if not self.known:
            return None
        with self._lock:
            url = self._url
        return frozenset([url] if isinstance(url, str) else url.values()) - {""}

    def follow(self, changed: Callable[[], None]) -> Callable[[], None]:
        self._followers.append(changed)
        return lambda: self._followers.remove(changed)

    def ask(self, sticky_key: str, timeout: float | None) -> str:
        self.asked.append((sticky_key, timeout))
        self.on_ask()
        return self._answer(sticky_key)

    def _answer(self, sticky_key: str) -> str:
        with self._lock:
            url = self._url if isinstance(self._url, str) else self._url.get(sticky_key, "")
        if self.error is not None:
            raise self.error
        if not url:
            raise RouteInactive(f"route {self.key} is not active: activate it first", reason="ROUTE_INACTIVE")
        return url


class AsyncFakeRoutes(FakeRoutes):
    """The same for asyncio."""

    async def ask(self, sticky_key: str, timeout: float | None) -> str:  # type: ignore[override]  # noqa: ASYNC109
        return super().ask(sticky_key, timeout)
