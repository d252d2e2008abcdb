"""A bounded number of places for keys, and which key is evicted when all are taken.

This is CLOCK, the simplest case of the algorithm in Corbató, A Paging Experiment with the Multics System (MIT, 1968).
It approximates least recently used with one bit per key and without an order to maintain: a hand goes round, clears the
bit of the keys that were used since its last round, and evicts the first key whose bit is clear.
"""

from array import array


class ClockEviction:
    """Keys by place. The user of the key at a place sets its byte in ``used`` to 1."""

    def __init__(self, size: int) -> None:
        self.keys: list[bytes] = []
        self.used = bytearray()
        self._size = size
        self._free = array("I")
        self._hand = 0

    def take(self, key: bytes) -> tuple[int, bytes]:
        """Return a place for ``key``, and the key that was evicted from it, or an empty one."""
        if not self._free and len(self.keys) < self._size:
            self.keys.append(key)
            self.used.append(0)
            return len(self.keys) - 1, b""
        place = self._free.pop() if self._free else self._next_unused()
        evicted, self.keys[place] = self.keys[place], key
        return place, evicted

    def free(self, place: int) -> None:
        """Make a place free."""
        self.keys[place] = b""
        self.used[place] = 0
        self._free.append(place)

    def clear(self) -> None:
        """Make every place free."""
        self.keys.clear()
        self.used.clear()
        del self._free[:]
        self._hand = 0

    def _next_unused(self) -> int:
        used, hand = self.used, self._hand
        place = used.find(0, hand)
        if place < 0:
            used[hand:] = bytes(self._size - hand)
            hand, place = 0, used.find(0)
        used[hand:place] = bytes(place - hand)
        self._hand = (place + 1) % self._size
        return place
