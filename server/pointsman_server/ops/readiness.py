"""Whether load balancers may send calls to this server."""

from collections.abc import Callable

from pointsman_server.ops.health_monitor import HealthMonitor


class Readiness:
    """Ready: everything has started, what reads need is up, and the server does not drain.

    It does not wait for the feed, the relay and the consumers: without them reads are still right, within the bounds
    of the caches, and they depend on engines whose outage must not take all servers out of rotation.
    """

    def __init__(self, monitor: HealthMonitor) -> None:
        self._monitor = monitor
        self._awaited: dict[str, Callable[[], bool]] = {}
        self.draining = False

    def wait_for(self, name: str, has_come: Callable[[], bool]) -> None:
        """Make readiness wait until ``has_come`` returns True. It is not called again after that."""
        self._awaited[name] = has_come

    @property
    def waiting_for(self) -> list[str]:
        """Name what has not come yet."""
        self._awaited = {name: has_come for name, has_come in self._awaited.items() if not has_come()}
        return list(self._awaited)

    @property
    def can_answer(self) -> bool:
        """Whether reads can be answered; also while draining, as open calls are."""
        return not self.waiting_for and self._monitor.ready

    @property
    def ready(self) -> bool:
        return self.can_answer and not self.draining
