"""What a stub calls: every argument of a call reaches gRPC. How calls end is tested with the channel."""

from typing import Any

import pytest

from pointsman.channels.backends import Backends
from pointsman.channels.callables import StreamStream, StreamUnary, UnaryStream, UnaryUnary
from pointsman.channels.dispatch import Dispatch
from pointsman.channels.options import sticky_key_source
from tests.support.fake_routes import FakeRoutes

ARGUMENTS = {
    "timeout": 1.0,
    "metadata": (("a", "b"),),
    "credentials": object(),
    "wait_for_ready": True,
    "compression": object(),
}
NOTHING = dict.fromkeys(ARGUMENTS)


class Recorder:
    """A method of gRPC, and the call that it returns: one that has ended."""

    def __init__(self) -> None:
        self.calls: list[tuple[Any, ...]] = []

    def __call__(self, *arguments: Any) -> "Recorder":
        return self._note("__call__", arguments)

    def with_call(self, *arguments: Any) -> "Recorder":
        return self._note("with_call", arguments)

    def future(self, *arguments: Any) -> "Recorder":
        return self._note("future", arguments)

    def add_callback(self, _: object) -> bool:
        return False

    def _note(self, kind: str, arguments: tuple[Any, ...]) -> "Recorder":
        self.calls.append((kind, *arguments))
        return self


@pytest.mark.parametrize("given", [ARGUMENTS, NOTHING], ids=["all", "none"])
@pytest.mark.parametrize("by_name", [True, False], ids=["by name", "by place"])
@pytest.mark.parametrize(
    ("kind", "ways"),
    [
        (UnaryUnary, ("__call__", "with_call", "future")),
        (UnaryStream, ("__call__",)),
        (StreamUnary, ("__call__", "with_call", "future")),
        (StreamStream, ("__call__",)),
    ],
)
def test_every_argument_of_a_call_reaches_grpc(
    kind: Any, ways: tuple[str, ...], by_name: bool, given: dict[str, Any]
) -> None:
    backends: Backends[Any] = Backends(lambda url: url, lambda: None, drain_seconds=60.0)
    dispatch = Dispatch(FakeRoutes("http://one"), backends, sticky_key_source(""))
    recorder = Recorder()
    method = kind(dispatch, lambda _: recorder)
    for way in ways:
        if given is NOTHING:
            getattr(method, way)(b"request")
        elif by_name:
            getattr(method, way)(b"request", **given)
        else:
            getattr(method, way)(b"request", *given.values())
    assert recorder.calls == [(way, b"request", *given.values()) for way in ways]
    assert backends.open("http://one").calls == 0
