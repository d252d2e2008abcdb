"""pygrpc-native's server with the short way (``warm``) before everything that it does for a call.

It makes a task and a context for each call before a handler is asked, which costs more than the answer. Here a Resolve
that the short way answers is answered as soon as its bytes are there.
"""

from collections.abc import Callable
from typing import Any

import pygrpc_native
import pygrpc_native.aio
from pygrpc_native import EVENT_CALL

from pointsman_server.rpc.guards import Metadata

Shortcut = Callable[[bytes, Callable[[], Metadata | None]], bytes | None]


class Server(pygrpc_native.aio.Server):
    """``pygrpc_native.aio.Server``; ``shortcuts`` answer the methods that they are named by, or give None.

    It builds on how version 0.5 works inside: ``_on_events`` gets what has arrived, ``_table`` names the methods. A
    test holds both, and the version is pinned.
    """

    shortcuts: dict[str, Shortcut]

    def _on_events(self, events: list[tuple[Any, ...]]) -> None:
        if not self._stopping:
            events = [event for event in events if not self._is_answered(event)]
        if events:
            super()._on_events(events)

    def _is_answered(self, event: tuple[Any, ...]) -> bool:
        kind, call_id, method_id, payload, _, details = event
        shortcut = self.shortcuts.get(self._table[method_id][0]) if kind == EVENT_CALL else None
        answer = shortcut(payload, lambda: details[0]) if shortcut else None
        if answer is None or self._front is None:
            return False
        self._front.respond(call_id, answer)
        return True
