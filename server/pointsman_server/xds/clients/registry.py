"""The clients that are connected: how far each has followed, and what it refused."""

import secrets
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime

from pointsman_server.ports.store import Clock
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.stream import Observer, Stream


@dataclass(frozen=True, slots=True)
class Refusal:
    """What a client said to a response that it refused, and when."""

    text: str
    since: datetime


@dataclass(slots=True, eq=False)
class Connected:
    """One stream of a client, and what is known of it. ``id`` names it in this process, as long as it is open."""

    id: int
    stream: Stream
    _clock: Callable[[], Clock]
    _acknowledged: Clock | None = None
    # What ``Session.is_whole`` was, unless something happened since that can make it False.
    _is_whole: bool = False
    _refusals: dict[ResourceType, Refusal] = field(default_factory=dict)

    @property
    def acknowledged(self) -> Clock | None:
        """Up to where the client has been sent every change and acknowledged it; None before the first time."""
        if self.stream.settled and any(self.stream.session.states()) and self._asks_for_all():
            self._acknowledged = self._clock()
        return self._acknowledged

    @property
    def refusals(self) -> dict[ResourceType, Refusal]:
        """What the client refused last of each type, where it was not sent otherwise since."""
        refused = self.stream.session.refusals
        return {kind: refusal for kind, refusal in self._refusals.items() if kind in refused}

    def note_subscribed(self) -> None:
        self._is_whole = False

    def note_acknowledged(self, kind: ResourceType) -> None:
        if kind is ResourceType.CDS:
            self._is_whole = False
        if self.stream.session.settled and self._asks_for_all():
            self._acknowledged = self._clock()

    def _asks_for_all(self) -> bool:
        self._is_whole = self._is_whole or self.stream.session.is_whole
        return self._is_whole

    def note_refused(self, kind: ResourceType, text: str) -> None:
        self._refusals[kind] = Refusal(text, datetime.now(UTC))


class Clients(Observer):
    """All clients of this process, in the order in which they connected. The first of the observers of a stream."""

    def __init__(self, clock: Callable[[], Clock]) -> None:
        """``clock``: as of when what is served is true."""
        # Of all processes of all servers, which may share an address.
        self.process = secrets.token_hex(4)
        self._clock = clock
        self._clients: dict[Stream, Connected] = {}
        self._count = 0

    def __len__(self) -> int:
        return len(self._clients)

    def __iter__(self) -> Iterator[Connected]:
        """Return the clients of now: others may come and go meanwhile."""
        return iter(tuple(self._clients.values()))

    def __contains__(self, stream: Stream) -> bool:
        return stream in self._clients

    def name_of(self, client: Connected) -> str:
        """Name a client among those of all processes."""
        return f"{self.process}-{client.id}"

    def of(self, stream: Stream) -> Connected:
        """Return the client of a stream that is open."""
        return self._clients[stream]

    def opened(self, stream: Stream) -> None:
        self._count += 1
        self._clients[stream] = Connected(self._count, stream, self._clock)

    def closed(self, stream: Stream) -> None:
        del self._clients[stream]

    def subscribed(self, stream: Stream, roots: Collection[str]) -> None:
        self._clients[stream].note_subscribed()

    def acknowledged(self, stream: Stream, kind: ResourceType, seconds: float) -> None:
        self._clients[stream].note_acknowledged(kind)

    def refused(self, stream: Stream, kind: ResourceType, text: str) -> None:
        self._clients[stream].note_refused(kind, text)
