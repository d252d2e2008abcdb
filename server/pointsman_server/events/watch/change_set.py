"""A change set as events: encoded once, and picked for each filter once."""

from collections.abc import Mapping, Sequence

from pointsman_server.domain.routes import Change
from pointsman_server.events.watch import encoding
from pointsman_server.events.watch.filters import Filter, FilterIndex
from pointsman_server.ports.store import Clock
from pointsman_server.runtime.fair_share import FairShare

# Changes that are encoded, or picked, before other work gets its turn: about a millisecond.
ENCODED_IN_A_TURN = 50
PICKED_IN_A_TURN = 200


class ChangeSet:
    """Changes that were made together, which are complete as of ``clock``; ``first`` is the first one's revision."""

    __slots__ = ("_changes", "_encoded", "_events", "clock", "first", "keys")

    def __init__(self, clock: Clock, changes: Sequence[Change]) -> None:
        self.clock = clock
        self.first = changes[0].revision
        self.keys = [change.key for change in changes]
        self._changes = changes
        self._encoded: Sequence[bytes] = ()
        # What streams with a filter send. Filters that nothing matches are not here: there may be many of them.
        self._events: dict[Filter, Sequence[bytes]] = {}

    def __len__(self) -> int:
        return len(self.keys)

    @property
    def unsent(self) -> Sequence[Change]:
        """The changes, until they are encoded."""
        return self._changes

    async def encode(self, fair_share: FairShare) -> None:
        """Encode every change, once. The messages replace the changes, which take four times their memory."""
        if self._encoded:
            return
        if len(self) <= ENCODED_IN_A_TURN:
            self._encoded = list(map(encoding.change, self._changes))
        else:
            self._encoded = await fair_share.map(encoding.change, self._changes, size=ENCODED_IN_A_TURN)
        self._changes = ()

    def events_of(self, wanted: Filter) -> Sequence[bytes]:
        """Return the events that a stream with this filter sends; nothing if no change matches."""
        found = self._events.get(wanted)
        if found is not None:
            return found
        picked = [one for key, one in zip(self.keys, self._encoded, strict=True) if wanted.matches(key)]
        return self._keep(wanted, picked) if picked else ()

    async def pick(self, filters: FilterIndex, fair_share: FairShare) -> Mapping[Filter, Sequence[bytes]]:
        """Return the events of every filter in ``filters`` that a change matches."""
        if len(self) > PICKED_IN_A_TURN:
            # A filter that is added meanwhile would get a part of the set.
            filters = filters.copy()
        picked: dict[Filter, list[bytes]] = {}
        for start in range(0, len(self), PICKED_IN_A_TURN):
            if start:
                await fair_share.take()
            for key, one in zip(self.keys[start:][:PICKED_IN_A_TURN], self._encoded[start:], strict=False):
                for wanted in filters.matching(key):
                    picked.setdefault(wanted, []).append(one)
        if len(self) <= PICKED_IN_A_TURN:
            return {wanted: self._keep(wanted, some) for wanted, some in picked.items()}
        return dict(await fair_share.map(lambda item: (item[0], self._keep(*item)), list(picked.items()), size=1))

    def _keep(self, wanted: Filter, picked: Sequence[bytes]) -> Sequence[bytes]:
        found = self._events.get(wanted)
        if found is None:
            # Filters that match the whole set share its events.
            whole = wanted if len(picked) < len(self) else _WHOLE
            found = self._events.get(whole)
            if found is None:
                found = self._events[whole] = encoding.change_set(self.clock, picked)
            self._events[wanted] = found
        return found


_WHOLE = Filter(traffic=True)
