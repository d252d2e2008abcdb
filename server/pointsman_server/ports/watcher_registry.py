"""Which watches are open at any server, and what each has applied."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

from pointsman_server.ports.store import Clock


class WatchName(NamedTuple):
    """Names a watch: the id that its client chose, the subject that it is authenticated as, and its filter.

    The subject is part of it, so that no caller reports for a watch of another one, whose id is no secret.
    """

    id: str
    subject: str
    tenant: str = ""
    service: str = ""
    env: str = ""


@dataclass(frozen=True, slots=True)
class OpenWatch:
    """A watch that a server serves: what people call it, the address of its client, and when its stream began."""

    name: WatchName
    title: str
    address: str
    since: datetime


@dataclass(frozen=True, slots=True)
class RegisteredWatch:
    """A watch that ``server`` has published; ``applied`` is what its client has reported, if it has."""

    server: str
    watch: OpenWatch
    applied: Clock | None = None


class Report(NamedTuple):
    """The client of a watch has applied everything up to ``applied``."""

    name: WatchName
    applied: Clock


class WatcherRegistry(Protocol):
    """What servers tell each other of their watches.

    - A server publishes its watches again before ``ttl`` seconds have passed, or they vanish together with their
      reports. So nothing is left of a server that was killed.
    - A report is kept for a watch that is published, with each server that publishes it, and for no other: so callers
      cannot fill the registry. Within one epoch the highest revision is kept. A report of another epoch replaces it.
    - An inquiry is a revision that somebody asks about. The highest one of an epoch is kept, and one of another epoch
      replaces it; it is forgotten ``inquiry_ttl`` seconds after it was last made.
    - The registry may lose anything at any time: then less is known to be applied, never more.

    Every method raises RegistryUnavailable; what it was to write may then be written or not.
    """

    async def publish(self, server: str, opened: Sequence[OpenWatch], closed: Sequence[WatchName]) -> int:
        """Add and remove watches of ``server``, and keep the others. Returns how many it has then.

        A watch that is added again keeps its report.
        """

    async def withdraw(self, server: str) -> None:
        """Remove all watches of ``server``."""

    async def report(self, reports: Sequence[Report]) -> Sequence[bool]:
        """Keep the reports; each result says whether any server has published that watch."""

    async def applied(self, server: str, names: Sequence[WatchName]) -> Sequence[Clock | None]:
        """Return what has been reported for watches of ``server``, in their order."""

    async def watches(self) -> Sequence[RegisteredWatch]:
        """Return the watches of all servers. One that is open at two servers is in it twice."""

    async def inquire(self, clock: Clock) -> None:
        """Make an inquiry."""

    async def inquiry(self) -> Clock | None:
        """Return the inquiry, or None."""


class RegistryUnavailable(Exception):
    """The registry cannot be reached, or does not answer in time."""
