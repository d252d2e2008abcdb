"""pygrpc-native's server with the fast path before everything that it does for a call.

It makes a task and a context for each call before a handler runs, which costs more than the answer. Here the fast path
answers a Resolve as soon as its bytes have arrived, or as soon as its key is loaded.
"""

from typing import Any

import pygrpc_native
import pygrpc_native.aio
from pygrpc_native import EVENT_CALL, EVENT_CANCEL

from pointsman_server.rpc.transport.native_calls import NativeCalls


class Server(pygrpc_native.aio.Server):
    """``pygrpc_native.aio.Server``; ``fast`` serves calls of the methods that it is named by, or leaves them.

    It builds on how version 0.5 works inside: ``_on_events`` gets what has arrived, ``_table`` names the methods. A
    test holds both, and the version is pinned.
    """

    fast: dict[str, NativeCalls]

    def _on_events(self, events: list[tuple[Any, ...]]) -> None:
        events = [event for event in events if not self._is_ours(event)]
        if events:
            super()._on_events(events)

    def _is_ours(self, event: tuple[Any, ...]) -> bool:
        kind, call_id, method_id, payload, _, details = event
        if kind == EVENT_CANCEL:
            return any(calls.cancel(call_id) for calls in self.fast.values())
        front = self._front
        if kind != EVENT_CALL or self._stopping or front is None:
            return False
        calls = self.fast.get(self._table[method_id][0])
        return calls is not None and calls.take(call_id, payload, details, front)
