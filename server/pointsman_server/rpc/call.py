"""What is known of the call under way: its request id, who calls, its trace. Read from metadata only when needed."""

import random
import re
from contextvars import ContextVar
from typing import Any

import grpc

from pointsman_server.domain.identity import ANONYMOUS, Identity

Context = grpc.aio.ServicerContext[Any, Any]

REQUEST_ID = "x-request-id"
TRACEPARENT = "traceparent"
LONGEST_ID = 128
# grpcio says "no deadline" with a time far away.
FOREVER = 1e7
# W3C Trace Context §3.2. Versions to come may add fields; those are not ours to pass on.
_TRACEPARENT = re.compile(r"(?!ff)[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")


class Call:
    """One call. Everything is worked out at first use: most calls need none of it.

    ``identity`` is who calls, once ``access.authenticate`` has found out; anonymous where that is off.
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
            self._request_id = self._text(REQUEST_ID) or f"{random.getrandbits(128):032x}"
        return self._request_id

    @property
    def traceparent(self) -> str:
        """The W3C trace context of the caller, if it sent one. It is stored and published, so nothing else passes."""
        given = self._text(TRACEPARENT)
        return given if _TRACEPARENT.fullmatch(given) else ""

    @property
    def actor(self) -> str:
        """Who calls, as the history of changes names them."""
        return self.identity.subject

    @property
    def peer(self) -> str:
        """From where."""
        return self._context.peer()

    def _text(self, name: str) -> str:
        """Return a value that can be sent back and stored: printable ASCII, as gRPC has it, and short. Else nothing."""
        if self._metadata is None:
            pairs = self._context.invocation_metadata() or ()
            self._metadata = {key: value for key, value in pairs if isinstance(value, str)}
        given = self._metadata.get(name, "")
        return given if len(given) <= LONGEST_ID and given.isascii() and given.isprintable() else ""


_current: ContextVar[Call] = ContextVar("call")


def begin(context: Context) -> Call:
    """Make ``context`` the call under way."""
    call = Call(context)
    _current.set(call)
    return call


def current() -> Call:
    """Return the call under way."""
    return _current.get()
