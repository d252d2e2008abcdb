"""The internals of pygrpc-native that the server depends on: an upgrade that changes them fails here."""

import inspect
from importlib.util import find_spec

import pytest

native = pytest.mark.skipif(find_spec("pygrpc_native") is None, reason="pygrpc-native has no wheel here")


@native
def test_everything_that_arrives_passes_one_method_with_the_names_of_the_methods_beside_it() -> None:
    import pygrpc_native.aio

    source = inspect.getsource(pygrpc_native.aio.Server)
    assert list(inspect.signature(pygrpc_native.aio.Server._on_events).parameters) == ["self", "events"]
    assert "for kind, call_id, method_id, payload, _, details in events" in source
    assert "method, handler = self._table[method_id]" in source
    assert "loop.call_soon_threadsafe(self._on_events, events)" in source


@native
def test_what_the_fast_path_takes_goes_no_further_until_the_server_stops(monkeypatch: pytest.MonkeyPatch) -> None:
    import pygrpc_native
    import pygrpc_native.aio

    from pointsman_server.rpc.transport.native import Server

    passed: list[object] = []
    monkeypatch.setattr(pygrpc_native.aio.Server, "_on_events", lambda _self, events: passed.extend(events))
    taken: list[int] = []
    server = Server()
    server.fast = {"/s/Fast": Takes(taken)}  # type: ignore[dict-item] # stands in
    server._table = [("/s/Fast", None), ("/s/Other", None)]  # type: ignore[list-item]
    server._front = object()  # type: ignore[assignment]
    call, cancel = pygrpc_native.EVENT_CALL, pygrpc_native._native.EVENT_CANCEL
    events = [
        (call, 1, 0, b"usual", None, ("meta", "peer", None)),
        (call, 2, 0, b"odd", None, ("meta", "peer", None)),
        (call, 3, 1, b"usual", None, ("meta", "peer", None)),
        (cancel, 1, 0, None, None, None),
        (cancel, 3, 0, None, None, None),
    ]

    server._on_events(list(events))
    assert (taken, passed) == ([], [events[1], events[2], events[4]])

    server._on_events(events[:1])
    server._stopping = True
    passed.clear()
    server._on_events([events[3], events[0]])
    assert (taken, passed) == ([], [events[0]])


class Takes:
    """Takes usual calls, and lets them go when they are cancelled."""

    def __init__(self, taken: list[int]) -> None:
        self.taken = taken

    def take(self, call_id: int, request: bytes, details: object, responder: object) -> bool:
        assert (details, responder is None) == (("meta", "peer", None), False)
        if request == b"usual":
            self.taken.append(call_id)
        return request == b"usual"

    def cancel(self, call_id: int) -> bool:
        if call_id not in self.taken:
            return False
        self.taken.remove(call_id)
        return True
