"""Clusters and endpoints that a client keeps for a while after the last call was let through to them."""

from collections.abc import Iterator, Mapping

from pointsman_server.xds.protocol.types import ResourceType

Name = tuple[ResourceType, str]


class Lingering:
    """The names of a session's resources that linger, each with a number that says since when."""

    # There is one for each stream.
    __slots__ = ("_count", "_since", "_untold")

    def __init__(self) -> None:
        self._since: dict[Name, int] = {}
        self._untold: dict[Name, int] = {}
        self._count = 0

    def begin(self, name: Name) -> None:
        """Let a name linger, if it does not already."""
        if name not in self._since:
            self._count += 1
            self._since[name] = self._untold[name] = self._count

    def __contains__(self, name: Name) -> bool:
        return name in self._since

    def forget(self, name: Name) -> None:
        """Let a name linger no more, because calls are let through again."""
        self._since.pop(name, None)

    def begun(self) -> Mapping[Name, int]:
        """Return what has begun to linger since the last call."""
        begun, self._untold = self._untold, {}
        return begun

    def release(self, begun: Mapping[Name, int]) -> Iterator[Name]:
        """Let go of what has lingered ever since, and yield it."""
        for name, number in begun.items():
            if self._since.get(name) == number:
                del self._since[name]
                yield name
