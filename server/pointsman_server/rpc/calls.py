"""What is known of the call under way: its request id, who calls, its trace. Read from metadata only when needed."""

import uuid
from contextvars import ContextVar
from typing import Any

import grpc

from pointsman_server.identity import ANONYMOUS, Identity

Context = grpc.aio.ServicerContext[Any, Any]

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"
LONGEST_ID = 128


class Call:
    """One call. Everything is worked out at first use: most calls need none of it.

    ``identity`` is who calls: anonymous until a stage has found out.
    """

    __slots__ = ("_context", "_metadata", "_request_id", "identity")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._metadata: dict[str, str] | None = None
        self._request_id = ""
        self.identity: Identity = ANONYMOUS

    @property
    def request_id(self) -> str:
        """The caller's ``x-request-id`` if it is a decent one, else a new one."""
        if not self._request_id:
            given = self._text(REQUEST_ID)
            fine = 0 < len(given) <= LONGEST_ID and given.isprintable()
            self._request_id = given if fine else uuid.uuid4().hex
        return self._request_id

    @property
    def traceparent(self) -> str:
        """The W3C trace context of the caller, if it sent one."""
        given = self._text(TRACEPARENT)
        return given if len(given) <= LONGEST_ID else ""

    @property
    def actor(self) -> str:
        """Who calls."""
        return self.identity.subject

    @property
    def peer(self) -> str:
        """From where."""
        return self._context.peer()

    def _text(self, name: str) -> str:
        if self._metadata is None:
            pairs = self._context.invocation_metadata() or ()
            self._metadata = {key: value for key, value in pairs if isinstance(value, str)}
        return self._metadata.get(name, "")


_current: ContextVar[Call] = ContextVar("call")


def begin(context: Context) -> Call:
    """Make ``context`` the call under way."""
    call = Call(context)
    _current.set(call)
    return call


def current() -> Call:
    """Return the call under way."""
    return _current.get()
