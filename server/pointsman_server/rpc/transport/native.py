"""pygrpc-native's server with the short ways (``warm``, ``cold``) before everything that it does for a call.

It makes a task and a context for each call before a handler is asked, which costs more than the answer. Here a Resolve
that the short way answers is answered as soon as its bytes are there, or as soon as its key is loaded.
"""

from collections.abc import Callable
from typing import Any

import pygrpc_native
import pygrpc_native.aio
from pygrpc_native import EVENT_CALL, EVENT_CANCEL

from pointsman_server.rpc.fastpath.guards import Metadata
from pointsman_server.rpc.fastpath.misses import ColdAnswers

Shortcut = Callable[[bytes, Callable[[], Metadata | None]], bytes | None]


class Server(pygrpc_native.aio.Server):
    """``pygrpc_native.aio.Server``; ``shortcuts`` answer the methods that they are named by, or give None.

    ``waiting`` take what those leave, by the names of methods, and answer later; or leave it too.

    It builds on how version 0.5 works inside: ``_on_events`` gets what has arrived, ``_table`` names the methods. A
    test holds both, and the version is pinned.
    """

    shortcuts: dict[str, Shortcut]
    waiting: dict[str, ColdAnswers]

    def _on_events(self, events: list[tuple[Any, ...]]) -> None:
        events = [event for event in events if not self._is_ours(event)]
        if events:
            super()._on_events(events)

    def _is_ours(self, event: tuple[Any, ...]) -> bool:
        kind, call_id, method_id, payload, _, details = event
        if kind == EVENT_CANCEL:
            return any(cold.cancel(call_id) for cold in self.waiting.values())
        front = self._front
        if kind != EVENT_CALL or self._stopping or front is None:
            return False
        method = self._table[method_id][0]
        shortcut = self.shortcuts.get(method)
        answer = shortcut(payload, lambda: details[0]) if shortcut else None
        if answer is not None:
            front.respond(call_id, answer)
            return True
        cold = self.waiting.get(method)
        return cold is not None and cold.take(call_id, payload, details, front)
