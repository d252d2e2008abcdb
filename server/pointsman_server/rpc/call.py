"""The current call: its request id, identity, trace and status code. Metadata is read only when it is needed."""

import asyncio
import random
from typing import Any

import grpc
from grpc import StatusCode

from pointsman_server.domain.identity import ANONYMOUS, Identity
from pointsman_server.rpc.transport.limits import LONGEST_ID, REQUEST_ID
from pointsman_server.telemetry.current_call import current
from pointsman_server.telemetry.tracing.spans import Span
from pointsman_server.telemetry.tracing.trace_context import TraceContext, received

Context = grpc.aio.ServicerContext[Any, Any]

TRACEPARENT = "traceparent"
TRACESTATE = "tracestate"
# What is kept of the metadata of a call, which has its credential, too.
_READ = frozenset({REQUEST_ID, TRACEPARENT, TRACESTATE})
# Seconds. For a call without a deadline, grpcio reports a remaining time of at least this.
NO_DEADLINE = 1e7


class Call:
    """One call. Its properties are read from the context at first use: most calls need none of them.

    ``identity`` is the authenticated caller, and anonymous until ``authentication.authenticate`` has run. ``span`` is
    that of this call, once it has begun, while tracing is on.
    """

    __slots__ = ("_context", "_metadata", "_request_id", "identity", "span")

    def __init__(self, context: Context) -> None:
        self._context = context
        self._metadata: dict[str, str] | None = None
        self._request_id = ""
        self.identity: Identity = ANONYMOUS
        self.span: Span | None = None

    @property
    def request_id(self) -> str:
        """The caller's ``x-request-id``, shortened to LONGEST_ID, if it is printable ASCII; else a new one."""
        if not self._request_id:
            self._request_id = self._text(REQUEST_ID)[:LONGEST_ID] or f"{random.getrandbits(128):032x}"
        return self._request_id

    @property
    def trace(self) -> TraceContext:
        """What is passed on with what this call causes: the context of its span, else its caller's."""
        if self.span is not None:
            return self.span.context
        return received(self._text(TRACEPARENT), self._text(TRACESTATE))

    @property
    def actor(self) -> str:
        """The caller's name in the history of changes."""
        return self.identity.subject

    @property
    def peer(self) -> str:
        """The caller's address, as gRPC writes it: ``ipv4:127.0.0.1:80``."""
        return self._context.peer()

    def is_of(self, context: Context) -> bool:
        """Whether ``context`` is that of this call."""
        return self._context is context

    def _text(self, name: str) -> str:
        """Return a metadata value that is safe to send back and store: printable ASCII. Else an empty string."""
        if self._metadata is None:
            pairs = self._context.invocation_metadata() or ()
            self._metadata = {key: value for key, value in pairs if key in _READ and isinstance(value, str)}
        given = self._metadata.get(name, "")
        return given if given.isascii() and given.isprintable() else ""


def begin_call(context: Context) -> Call:
    """Make ``context`` the current call of this task, unless it is."""
    call = current.get()
    if not isinstance(call, Call) or not call.is_of(context):
        call = Call(context)
        current.set(call)
    return call


def current_call() -> Call:
    """Return the call of this task. Raises LookupError outside of one."""
    call = current.get()
    if isinstance(call, Call):
        return call
    raise LookupError("no call has begun")


def call_of(context: Context) -> Call:
    """Return the current call if it is that of ``context``, else a new one."""
    call = current.get()
    return call if isinstance(call, Call) and call.is_of(context) else Call(context)


def code_of(error: BaseException, context: Context) -> StatusCode:
    """Return the status code with which a call ends that raised ``error``."""
    if isinstance(error, asyncio.CancelledError):
        remaining = context.time_remaining()
        return StatusCode.DEADLINE_EXCEEDED if remaining is not None and remaining <= 0 else StatusCode.CANCELLED
    code: Any = context.code()
    if isinstance(code, StatusCode):
        return code
    return _BY_NUMBER.get(code, StatusCode.UNKNOWN) if isinstance(code, int) and code else StatusCode.UNKNOWN


_BY_NUMBER = {code.value[0]: code for code in StatusCode}
