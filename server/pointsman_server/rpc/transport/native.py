"""pygrpc-native's server, with the fast path before the work that it does for each call.

pygrpc-native makes a task and a context for each call before a handler runs, which takes longer than a Resolve. The
fast path responds when the bytes of a Resolve have arrived, or when its key is loaded.
"""

from typing import Any

import pygrpc_native
import pygrpc_native.aio
from pygrpc_native import EVENT_CALL, EVENT_CANCEL

from pointsman_server.rpc.transport.native_calls import NativeCalls


class Server(pygrpc_native.aio.Server):
    """``pygrpc_native.aio.Server`` whose ``fast``, by method path, serves calls or declines them.

    It depends on internals of version 0.5: ``_on_events`` gets what has arrived, and ``_table`` has the methods. The
    version is pinned, and a test checks both.
    """

    fast: dict[str, NativeCalls]

    def _on_events(self, events: list[tuple[Any, ...]]) -> None:
        events = [event for event in events if not self._is_taken(event)]
        if events:
            super()._on_events(events)

    def _is_taken(self, event: tuple[Any, ...]) -> bool:
        kind, call_id, method_id, payload, _, details = event
        if kind == EVENT_CANCEL:
            return any(calls.cancel(call_id) for calls in self.fast.values())
        front = self._front
        if kind != EVENT_CALL or self._stopping or front is None:
            return False
        calls = self.fast.get(self._table[method_id][0])
        return calls is not None and calls.take(call_id, payload, details, front)
