"""Where the news of ``pointsman top`` come from: three threads, each of which goes on while the others have nothing."""

import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from itertools import islice

from pointsman.cli.live.follower import Follower, Interrupted
from pointsman.cli.top.board import CHANGES, HISTORY, METRICS, MOST_CHANGES, WATCHERS, Missing, News, Table
from pointsman.cli.top.exposition import parsed
from pointsman.client import Client
from pointsman.errors import PointsmanError
from pointsman.near_cache.watch.protocol import Apply, Position, Replace
from pointsman.rpc.convert import change_of
from pointsman.v1.route_pb2 import Route
from pointsman.v1.watch_pb2 import WatchRequest

Take = Callable[[News], object]

_SCRAPE_SECONDS = 5.0
_MOST_BYTES = 32 * 1024 * 1024
_CALL_SECONDS = 2.0
_JOIN_SECONDS = 3.0
_AGAIN_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Wanted:
    """What to show: routes of which tenant, service and env (empty: any), and how often to ask, in seconds."""

    tenant: str = ""
    service: str = ""
    env: str = ""
    interval: float = 2.0


class Sources:
    """From ``start`` to ``stop``, gives news to ``take``, which is called in threads."""

    def __init__(self, client: Client, metrics_url: str, wanted: Wanted) -> None:
        self._client = client
        self._metrics_url = metrics_url
        self._wanted = wanted
        self._stopped = threading.Event()
        self._follower: Follower[None] | None = None
        self._position: Position | None = None
        self._threads: list[threading.Thread] = []

    def start(self, take: Take) -> None:
        """Start the threads."""
        for run in (self._scrape, self._follow, self._ask):
            thread = threading.Thread(target=run, args=(take,), name=f"pointsman-top{run.__name__}", daemon=True)
            self._threads.append(thread)
            thread.start()

    def stop(self) -> None:
        """Stop the threads, and wait for them."""
        self._stopped.set()
        if self._follower:
            self._follower.stop()
        for thread in self._threads:
            thread.join(_JOIN_SECONDS)

    def _scrape(self, take: Take) -> None:
        if not self._metrics_url:
            take(Missing(METRICS, "say where they are: --metrics http://HOST:9464/metrics"))
            return
        while not self._stopped.is_set():
            try:
                take(parsed(fetched(self._metrics_url), time.monotonic()))
            except (OSError, ValueError) as error:
                why = getattr(error, "reason", None) or error
                take(Missing(METRICS, f"{self._metrics_url}: {why}: say where they are with --metrics"))
            self._stopped.wait(self._wanted.interval)

    def _follow(self, take: Take) -> None:
        """Give what the stream brings; while there is none, what the history has."""
        while not self._stopped.is_set():
            try:
                self._stream(take)
            except PointsmanError as error:
                take(Missing(CHANGES, f"Watch: {error.message or error.code.name}"))
                self._list(take)
            self._stopped.wait(_AGAIN_SECONDS)

    def _list(self, take: Take) -> None:
        """Give the newest changes of the history."""
        wanted = self._wanted
        found = self._client.changes(
            tenant=wanted.tenant,
            service=wanted.service,
            env=wanted.env,
            newest_first=True,
            page_size=MOST_CHANGES,
            timeout=_CALL_SECONDS,
        )
        try:
            take(tuple(islice(found, MOST_CHANGES))[::-1])
        except PointsmanError as error:
            take(Missing(HISTORY, f"ListChanges: {error.message or error.code.name}"))
        else:
            take(Missing(HISTORY, ""))

    def _stream(self, take: Take) -> None:
        wanted = self._wanted
        request = WatchRequest(tenant=wanted.tenant, service=wanted.service, env=wanted.env, traffic=True)
        self._follower = Follower(self._client, request, _nothing, self._position)
        if self._stopped.is_set():
            return
        for step in self._follower.steps():
            if isinstance(step, Interrupted):
                take(Missing(CHANGES, f"Watch: {step.error.message or step.error.code.name}"))
                continue
            self._position = step.as_of
            take(Missing(CHANGES, ""))
            if isinstance(step, Replace):
                take(Table(len(step.routes), step.as_of.revision))
                self._list(take)
            elif isinstance(step, Apply):
                take(tuple(map(change_of, step.changes)))
            else:
                take(Table(None, step.as_of.revision, step.age))

    def _ask(self, take: Take) -> None:
        """Ask who has the revision that is known."""
        wanted = self._wanted
        while not self._stopped.is_set():
            if self._position is not None and self._position.revision:
                try:
                    take(
                        self._client.get_propagation(
                            self._position.revision,
                            tenant=wanted.tenant,
                            service=wanted.service,
                            env=wanted.env,
                            timeout=_CALL_SECONDS,
                        )
                    )
                except PointsmanError as error:
                    take(Missing(WATCHERS, f"GetPropagation: {error.message or error.code.name}"))
            self._stopped.wait(self._wanted.interval)


def _nothing(_: Route) -> None:
    """Keep nothing of a route: snapshots are only counted."""


def fetched(url: str) -> str:
    """Return what is at ``url``. Raises OSError, and ValueError for a URL that is none of HTTP."""
    if not url.startswith(("http://", "https://")):
        raise ValueError("must begin with http:// or https://")
    request = urllib.request.Request(url, headers={"Accept": "text/plain"})  # noqa: S310 - checked above
    with urllib.request.urlopen(request, timeout=_SCRAPE_SECONDS) as response:  # noqa: S310 - checked above
        body: bytes = response.read(_MOST_BYTES)
    return body.decode(errors="replace")
