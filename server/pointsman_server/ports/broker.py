"""From the history to the broker and back: relay log, publisher, consumers."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from pointsman_server.domain.routes import Change


class Leadership(Protocol):
    """The right to publish, held by at most one server that the store can see.

    Every method raises StoreUnavailable as soon as the right may be lost.
    """

    async def unpublished(self, limit: int, published: int = 0) -> list[Change]:
        """Record ``published``, and read the next changes after what is published, in order and without gaps."""

    async def published(self, revision: int) -> None:
        """Record that every change up to ``revision`` is surely on the broker. It never moves back.

        A crash of the store may take it back: then some of it is published again.
        """

    async def wait(self, seconds: float) -> None:
        """Wait until a change may have been committed, or for ``seconds``."""


@dataclass(frozen=True, slots=True)
class RelayState:
    """How far the relay is: the published revision, the last one, and how many seconds the oldest waits."""

    published: int
    revision: int
    oldest_seconds: float

    @property
    def lag(self) -> int:
        """How many changes wait."""
        return self.revision - self.published


class RelayLog(Protocol):
    """The history as an outbox."""

    def lead(self) -> AbstractAsyncContextManager[Leadership]:
        """Wait to become the leader; the block ends the leadership. Raises StoreUnavailable."""

    async def state(self) -> RelayState:
        """Read how far the relay is. Raises StoreUnavailable."""


class ChangePublisher(Protocol):
    """The way to the broker."""

    async def publish(self, changes: Sequence[Change]) -> int:
        """Publish in order; return how many, from the front, the broker has surely stored.

        Fewer than all means that the broker failed: nothing after them is on its way any more, so publishing them
        again keeps the order per key.
        """

    async def close(self) -> None:
        """Let go of the broker."""


@dataclass(frozen=True, slots=True)
class Poison:
    """A message that is no change: where it lies, and why it was refused. Never its content."""

    topic: str
    partition: int
    offset: int
    problem: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """Some messages in the order of their partitions."""

    changes: Sequence[Change]
    poison: Sequence[Poison] = ()


class ChangeSource(Protocol):
    """A member of a consumer group on the topic.

    A change may come twice, never out of order per key, never not at all.
    """

    async def receive(self, seconds: float) -> Delivery:
        """Wait up to ``seconds`` for messages. Raises BrokerUnavailable."""

    async def commit(self) -> None:
        """Record that everything received so far is done: it will not come again. Raises BrokerUnavailable."""

    async def rewind(self) -> None:
        """Receive again everything that was received since the last commit."""

    async def lag(self) -> int:
        """How many messages of the assigned partitions are not yet received."""

    async def close(self) -> None:
        """Leave the group."""


class ChangeStream(Protocol):
    """Every change that reaches the topic from the first ``receive`` on: all partitions, no group, no memory.

    A change may come twice, and late; what was published while the broker could not be reached may not come at all.
    """

    async def receive(self, seconds: float) -> Sequence[Change]:
        """Wait up to ``seconds`` for changes. Raises BrokerUnavailable."""

    async def close(self) -> None:
        """Let go of the broker."""


class BrokerUnavailable(Exception):
    """The broker cannot be reached, or does not answer in time."""
