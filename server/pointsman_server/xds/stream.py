"""One stream: connects a session to its client and to the changes of what is served."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from pointsman_server.domain.codec import encoded_field
from pointsman_server.domain.errors import FieldViolation, InvalidField, StoreUnavailable
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.batcher import settle
from pointsman_server.runtime.fair_share import Window
from pointsman_server.runtime.rate_limiter import Pace, Rate
from pointsman_server.xds.clients.caller import Caller
from pointsman_server.xds.lingering import Name
from pointsman_server.xds.protocol import messages as pb
from pointsman_server.xds.protocol.types import BY_URL, ResourceType
from pointsman_server.xds.resource import Source
from pointsman_server.xds.session import Outcome, Push, Session
from pointsman_server.xds.version_info import clock_of, version_info
from pointsman_server.xds.views import View

# Names of each type that a client may subscribe to, besides those that a wildcard gives it.
MOST_NAMES = 1_000
# Twice as long as the longest name of a route in the new style.
LONGEST_NAME = 1_024
# Requests of a stream, 5,000 of them at once; more wait. A client that starts sends four for each name.
REQUESTS = Rate(500, burst_seconds=10)
# Of what a session did since the request before (``Session.work``), so much counts as one more request.
WORK_OF_A_REQUEST = 50
# How long clients keep the endpoints of what is not live any more. A call is let through some milliseconds before it
# chooses an endpoint, more where the client has little CPU time.
LINGER_SECONDS = 1.0
# What waits for clusters waits no longer than this, for a client that does not acknowledge them.
HOLD_SECONDS = 2.0
# A server that lacks what a client has already waits so long for the store. Then the client can ask another server.
CATCH_UP_SECONDS = 10.0

# Who answers, as the field 6 of each DiscoveryResponse.
CONTROL_PLANE = encoded_field(6, pb.ControlPlane(identifier="pointsman").SerializeToString())


class Client(NamedTuple):
    """Who is at the other end of a stream. ``opened`` is in seconds since the Unix epoch."""

    node: str
    agent: str
    peer: str
    view: View
    caller: Caller
    opened: float


class WatchedSource(Source, Protocol):
    """A source that wakes its stream when resources may have changed; ``flush`` passes the changes on."""

    @property
    def clock(self) -> Clock:
        """The revision that every resource is true as of."""

    async def reached(self, clock: Clock) -> None:
        """Wait until ``self.clock`` is not before ``clock``."""

    def watch(self, stream: "Stream", root: str) -> None:
        """Tell ``stream`` of changes of ``root`` from now on."""

    def unwatch(self, stream: "Stream", root: str) -> None:
        """Stop telling it of changes of ``root``."""

    def watch_all(self, stream: "Stream") -> None:
        """Tell it of all changes from now on."""

    def flush(self, stream: "Stream") -> None:
        """Tell it of what has changed since, by ``Stream.changed`` or ``Stream.check``."""

    def recheck(self) -> None:
        """Note that what the client may read may have changed."""

    def has_news(self, stream: "Stream") -> bool:
        """Return whether something has changed that it was not told of."""

    def leave(self, stream: "Stream") -> None:
        """Stop telling it anything: it has ended."""


class Observer:
    """Receives the events of streams; the methods of this base do nothing."""

    def opened(self, stream: "Stream") -> None:
        """A client sent its first request."""

    def closed(self, stream: "Stream") -> None:
        """A stream ended; each that was opened is closed once."""

    def subscribed(self, stream: "Stream", roots: Collection[str]) -> None:
        """The client changed its subscriptions; ``roots`` are new among them."""

    def pushed(self, stream: "Stream", kind: ResourceType) -> None:
        """The transport took a response."""

    def acknowledged(self, stream: "Stream", kind: ResourceType, seconds: float) -> None:
        """The client accepted a response (ACK), ``seconds`` after it was handed to the transport."""

    def refused(self, stream: "Stream", kind: ResourceType, text: str) -> None:
        """The client refused a response (NACK); ``text`` is its error message."""


class Stream:
    """Reads requests in one task and writes responses in another, so that neither waits for the other."""

    def __init__(
        self,
        client: Client,
        session: Session,
        source: WatchedSource,
        write: Callable[[bytes], Awaitable[Any]],
        *,
        observers: Sequence[Observer],
        hold_seconds: float = HOLD_SECONDS,
        linger_seconds: float = LINGER_SECONDS,
        catch_up_seconds: float = CATCH_UP_SECONDS,
    ) -> None:
        """``observers`` are called in this order; when the stream ends, in the reverse order."""
        self.client = client
        self.session = session
        self._source = source
        self._write = write
        self._observers = observers
        self._hold_seconds = hold_seconds
        self._linger_seconds = linger_seconds
        self._catch_up_seconds = catch_up_seconds
        # A set of five takes three times as much.
        self._roots: dict[str, None] = {}
        self._watches_all = False
        self._written: dict[ResourceType, float] = {}
        self._release_at: float | None = None
        self._work = Signal()
        self._window: Window | None = None
        self._error: Exception | None = None

    @property
    def settled(self) -> bool:
        """Whether the client has accepted everything as it is now."""
        return not self._source.has_news(self) and self.session.settled

    async def run(self, first: Any, requests: AsyncIterator[Any]) -> None:
        """Serve the stream until its requests end.

        Raises InvalidField for a request beyond the limits, and StoreUnavailable where the client has something later.
        """
        for observer in self._observers:
            observer.opened(self)
        reading = asyncio.create_task(self._read(first, requests))
        del first
        reading.add_done_callback(self._work.set)
        try:
            while not reading.done():
                hold = True
                if self.session.holds:
                    hold = await self._wait_briefly()
                else:
                    self._release_at = None
                    await self._work.wait()
                if self._error is not None:
                    raise self._error
                await self._send(hold)
            reading.result()
        finally:
            await self._close(reading)

    def wake(self, window: Window) -> None:
        """Send what changed, soon, and count in ``window`` until it is written. The snapshot calls this."""
        if self._window is None:
            self._window = window
            window.begin()
        self._work.set()

    def changed(self, roots: Collection[str]) -> None:
        """Take note of a change. The source calls this, in ``flush``."""
        self.session.change(roots)
        self._work.set()

    def check(self) -> None:
        """Note that anything may have changed, such as what the client may read."""
        self._source.recheck()
        self.session.check()
        self._work.set()

    def content(self, kind: ResourceType, name: str) -> Any:
        """Return a resource as it is served now to this client, as google.protobuf.Any."""
        return pb.DiscoveryResponse.FromString(self._source.resource(kind, name).body).resources[0]

    def fail(self, error: Exception) -> None:
        """End the stream by an error, which ``run`` raises."""
        self._error = error
        self._work.set()

    async def _read(self, first: Any, requests: AsyncIterator[Any]) -> None:
        pace = Pace(REQUESTS)
        await self._catch_up(first.version_info)
        self._receive(first)
        del first
        work = self.session.work
        async for request in requests:
            before, work = work, self.session.work
            await pace.take(1 + (work - before) // WORK_OF_A_REQUEST)
            await self._catch_up(request.version_info)
            self._receive(request)
            del request

    async def _catch_up(self, version: str) -> None:
        """Wait for what a client has already, from a server that has followed further.

        Raises StoreUnavailable when that takes too long: the client keeps what it has, and can ask another server.
        """
        clock = clock_of(version)
        if clock is None or not self._source.clock.is_before(clock):
            return
        try:
            async with asyncio.timeout(self._catch_up_seconds):
                await self._source.reached(clock)
        except TimeoutError:
            raise StoreUnavailable from None

    def _receive(self, request: Any) -> None:
        check_names(request.resource_names, self._most_names)
        # What was noted for this stream is part of what is answered.
        self._source.flush(self)
        outcome = self.session.receive(request)
        self._tell(outcome, request.type_url)
        self._watch()
        # Most requests acknowledge the last of what there was to send.
        if self.session.is_due or self._release_at is not None:
            self._work.set()

    def _most_names(self) -> int:
        return MOST_NAMES + len(self._source.names(ResourceType.CDS))

    def _tell(self, outcome: Outcome, type_url: str) -> None:
        if outcome is Outcome.ACKNOWLEDGED:
            kind = BY_URL[type_url]
            seconds = time.monotonic() - self._written[kind]
            for observer in self._observers:
                observer.acknowledged(self, kind, seconds)
        elif outcome is Outcome.REFUSED:
            kind = BY_URL[type_url]
            text = self.session.refusals.get(kind, "")
            for observer in self._observers:
                observer.refused(self, kind, text)

    def _watch(self) -> None:
        if self.session.wants_all and not self._watches_all:
            self._watches_all = True
            self._source.watch_all(self)
        roots = self.session.roots.keys()
        before = self._roots.keys()
        if roots != before:
            added = roots - before
            for root in added:
                self._source.watch(self, root)
            for root in before - roots:
                self._source.unwatch(self, root)
            self._roots = dict.fromkeys(roots)
            for observer in self._observers:
                observer.subscribed(self, added)

    async def _wait_briefly(self) -> bool:
        """Wait for something to send. Returns whether what waits for clusters is still to wait."""
        if self._release_at is None:
            self._release_at = asyncio.get_running_loop().time() + self._hold_seconds
        try:
            async with asyncio.timeout_at(self._release_at):
                await self._work.wait()
        except TimeoutError:
            return False
        return True

    async def _send(self, hold: bool) -> None:
        # Before resources are read, so that change sets are sent whole.
        self._source.flush(self)
        self._work.clear()
        clock = self._source.clock
        for push in self.session.take(hold=hold):
            # Before it is written: the client may answer before the transport says that it was.
            self._written[push.kind] = time.monotonic()
            await self._write(response(push, clock))
            for observer in self._observers:
                observer.pushed(self, push.kind)
        if began := self.session.lingering():
            asyncio.get_running_loop().call_later(self._linger_seconds, self._release, began)
        self._leave_window()

    def _release(self, lingering: Mapping[Name, int]) -> None:
        self.session.release(lingering)
        self._work.set()

    def _leave_window(self) -> None:
        window, self._window = self._window, None
        if window is not None:
            window.end()

    async def _close(self, reading: "asyncio.Task[None]") -> None:
        self._leave_window()
        self._source.leave(self)
        for observer in reversed(self._observers):
            observer.closed(self)
        reading.cancel()
        await asyncio.wait((reading,))
        if not reading.cancelled():
            reading.exception()


class Signal:
    """An ``asyncio.Event`` for one waiter, without the queue of waiters, which is most of its size."""

    __slots__ = ("_is_set", "_loop", "_waiter")

    def __init__(self) -> None:
        self._is_set = False
        self._waiter: asyncio.Future[None] | None = None
        # Looked up once: some releases of Python make a system call of that.
        self._loop: asyncio.AbstractEventLoop | None = None

    def set(self, _task: Any = None) -> None:
        """Set it. Of a task that is done, it may be the callback."""
        self._is_set = True
        if self._waiter is not None:
            settle(self._waiter, None)

    def clear(self) -> None:
        self._is_set = False

    def wait(self) -> "asyncio.Future[None]":
        """Return what ends when the signal is set."""
        if self._loop is None:
            self._loop = asyncio.get_running_loop()
        self._waiter = self._loop.create_future()
        if self._is_set:
            self._waiter.set_result(None)
        return self._waiter


def check_names(names: Collection[str], most: Callable[[], int]) -> None:
    """Check the names of a request; ``most`` is asked where there are many. Raises InvalidField."""
    if len(names) > MOST_NAMES and len(names) > (allowed := most()):
        text = f"{len(names)} names of one type: a stream may ask for {allowed}; use another one for the others"
        raise InvalidField([FieldViolation("resource_names", text)])
    if (longest := max(map(len, names), default=0)) > LONGEST_NAME:
        number = [len(name) for name in names].index(longest)
        text = f"{longest} characters long: a name has at most {LONGEST_NAME}"
        raise InvalidField([FieldViolation(f"resource_names[{number}]", text)])


def response(push: Push, clock: Clock) -> bytes:
    """Encode a DiscoveryResponse, true as of ``clock``: its resources are encoded already, once for all streams."""
    head = pb.DiscoveryResponse(version_info=version_info(push.version, clock), type_url=push.kind, nonce=push.nonce)
    return b"".join((*(each.body for each in push.resources), head.SerializeToString(), CONTROL_PLANE))
