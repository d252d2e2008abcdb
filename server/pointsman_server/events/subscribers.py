"""The subscribers of the feed: what each is called with, and what happens when one raises."""

import logging
from collections.abc import Sequence
from typing import Protocol

from pointsman_server.domain.routes import Change
from pointsman_server.ports.store import Clock

logger = logging.getLogger(__name__)

FAILED = "the subscriber %s failed and starts over"


class Subscriber(Protocol):
    """Receives every change of the store, in the order of revisions, each once.

    All calls come from the event loop and must not block: a local write waits for them. The feed calls ``apply`` and
    ``advance`` without a pause in between, so other tasks see the state as of one revision.
    """

    def start_over(self, clock: Clock) -> None:
        """Forget what was received. The next change is the one after ``clock``.

        Called at the beginning, on a new epoch, and after another method raised.
        """

    def apply(self, changes: Sequence[Change]) -> None:
        """Receive a change set: consecutive revisions. See ``Feed`` for what belongs together."""

    def advance(self, revision: int) -> None:
        """Every change up to ``revision`` has been received, or was made by this process."""

    def confirm(self, moment: float) -> None:
        """At ``moment``, in monotonic seconds, the store had no change that had not been received by now."""


class _Subscription:
    """A subscriber that raised has missed changes: it must start over, and receives nothing until that succeeds."""

    def __init__(self, subscriber: Subscriber, *, local_writes: bool) -> None:
        self.local_writes = local_writes
        self.subscriber = subscriber
        self._must_start_over = False

    def start_over(self, clock: Clock) -> None:
        self._must_start_over = False
        try:
            self.subscriber.start_over(clock)
        except Exception:
            logger.exception("the subscriber %s failed to start over", _name(self.subscriber))
            self._must_start_over = True

    def hand_over(self, changes: Sequence[Change], clock: Clock) -> None:
        if self._must_start_over:
            self.start_over(clock)
            return
        try:
            if changes:
                self.subscriber.apply(changes)
            self.subscriber.advance(clock.revision)
        except Exception:
            logger.exception(FAILED, _name(self.subscriber))
            self.start_over(clock)

    def confirm(self, moment: float, clock: Clock) -> None:
        if self._must_start_over:
            self.start_over(clock)
            return
        try:
            self.subscriber.confirm(moment)
        except Exception:
            logger.exception(FAILED, _name(self.subscriber))
            self.start_over(clock)


class Subscribers:
    """Calls all subscribers, in the order in which they were added. One that raises does not affect the others."""

    def __init__(self) -> None:
        self._subscriptions: list[_Subscription] = []

    @property
    def need_local_writes(self) -> bool:
        """Whether a subscriber must receive the changes that this process made."""
        return any(subscription.local_writes for subscription in self._subscriptions)

    def add(self, subscriber: Subscriber, clock: Clock | None, *, local_writes: bool) -> None:
        """Add a subscriber, which starts at ``clock``, or with the others when the feed has no clock yet."""
        subscription = _Subscription(subscriber, local_writes=local_writes)
        self._subscriptions.append(subscription)
        if clock:
            subscription.start_over(clock)

    def remove(self, subscriber: Subscriber) -> None:
        """Remove a subscriber, if it is there."""
        self._subscriptions = [each for each in self._subscriptions if each.subscriber is not subscriber]

    def start_over(self, clock: Clock) -> None:
        """Call ``start_over`` of all."""
        for subscription in tuple(self._subscriptions):
            subscription.start_over(clock)

    def hand_over(self, changes: Sequence[Change], clock: Clock, *, local: bool) -> None:
        """Call ``apply`` and ``advance`` of all; ``local`` changes only of those that need them."""
        for subscription in tuple(self._subscriptions):
            subscription.hand_over(() if local and not subscription.local_writes else changes, clock)

    def confirm(self, moment: float, clock: Clock) -> None:
        """Call ``confirm`` of all."""
        for subscription in tuple(self._subscriptions):
            subscription.confirm(moment, clock)


def _name(subscriber: Subscriber) -> str:
    return type(subscriber).__name__
