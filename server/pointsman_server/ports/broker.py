"""The broker: the relay's outbox, the publisher, and two kinds of consumer."""

from collections.abc import Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from typing import Protocol

from pointsman_server.domain.routes import Change


class Leadership(Protocol):
    """The exclusive right to publish: at most one server connected to the store is the leader.

    Every method raises StoreUnavailable if the leadership may be lost.
    """

    async def unpublished(self, limit: int, published: int = 0) -> list[Change]:
        """Record ``published``, then read the next unpublished changes, in order and without gaps."""

    async def published(self, revision: int) -> None:
        """Record that the broker has acknowledged every change up to ``revision``. A lower revision has no effect.

        A crash of the store may undo this: then some changes are published again.
        """

    async def wait(self, seconds: float) -> None:
        """Wait at most ``seconds`` for a change to be committed. May return early without one."""


@dataclass(frozen=True, slots=True)
class RelayState:
    """The published revision, the last revision, and how many seconds the oldest unpublished change has waited."""

    published: int
    revision: int
    oldest_seconds: float

    @property
    def lag(self) -> int:
        """The number of unpublished changes."""
        return self.revision - self.published


class RelayLog(Protocol):
    """The history as an outbox."""

    def lead(self) -> AbstractAsyncContextManager[Leadership]:
        """Wait to become the leader. The end of the block ends the leadership. Raises StoreUnavailable."""

    async def state(self) -> RelayState:
        """Read the progress of the relay. Raises StoreUnavailable."""


class ChangePublisher(Protocol):
    """Publishes changes to the broker."""

    async def publish(self, changes: Sequence[Change]) -> int:
        """Publish in order. Return how many, from the front, the broker has acknowledged.

        If fewer than all, the broker failed, and none of the rest is still in flight: publishing them again keeps the
        order per key.
        """

    async def close(self) -> None:
        """Close the connections."""


@dataclass(frozen=True, slots=True)
class Poison:
    """A message that cannot be decoded: its position, and the problem. ``problem`` never quotes the payload."""

    topic: str
    partition: int
    offset: int
    problem: str
    payload: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Delivery:
    """Messages, in order within each partition."""

    changes: Sequence[Change]
    poison: Sequence[Poison] = ()


class ChangeSource(Protocol):
    """A member of a consumer group on the topic.

    Every change is delivered at least once, and those of one key in order.
    """

    async def receive(self, seconds: float) -> Delivery:
        """Wait up to ``seconds`` for messages. Raises BrokerUnavailable."""

    async def commit(self) -> None:
        """Commit everything received so far: it is not delivered again. Raises BrokerUnavailable."""

    async def rewind(self) -> None:
        """Make ``receive`` deliver again what was received since the last commit."""

    async def lag(self) -> int:
        """Return how many messages of the assigned partitions are not yet received."""

    async def close(self) -> None:
        """Leave the group."""


class ChangeStream(Protocol):
    """Every change published since the first ``receive``, from all partitions, without a group or offsets.

    A change may be delivered twice, late, or, if it was published while the broker could not be reached, not at all.
    """

    async def receive(self, seconds: float) -> Sequence[Change]:
        """Wait up to ``seconds`` for changes. Raises BrokerUnavailable."""

    async def close(self) -> None:
        """Close the connections."""


class BrokerUnavailable(Exception):
    """The broker cannot be reached, or does not answer in time."""
