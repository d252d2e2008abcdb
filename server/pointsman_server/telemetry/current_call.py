"""The call that this task works for, as every log line written for it names it."""

from contextvars import ContextVar
from typing import Protocol


class LoggedCall(Protocol):
    """A call; ``request_id`` names it in logs and in its answer."""

    @property
    def request_id(self) -> str: ...


current: ContextVar[LoggedCall | None] = ContextVar("current_call", default=None)
