"""What a stage is: see ``interceptors.stages`` for all of them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from pointsman_server.rpc.call import Context

Handler = Callable[[Any, Context], Awaitable[Any]]


@dataclass(frozen=True, slots=True)
class Method:
    """One method of one service."""

    service: str
    name: str

    @classmethod
    def parse(cls, path: str) -> "Method":
        """Read ``/package.Service/Method``."""
        service, _, name = path.removeprefix("/").rpartition("/")
        return cls(service, name)


# One thing that happens to every call: makes, for a method, a handler that does it and goes on to the one given.
Stage = Callable[[Method, Handler], Handler]
