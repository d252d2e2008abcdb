"""rpc.calls: what is taken from the metadata of a call."""

from typing import cast

import pytest

from pointsman_server.rpc.call import Call, Context

TRACE = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
# A value that cannot be sent back as metadata, or that no database takes.
INDECENT = ("", "é", "a\0", "a\r\nb", "\x1b[31m", b"bytes")


class FakeContext:
    """The metadata of a call."""

    def __init__(self, name: str, value: str | bytes) -> None:
        self._pairs = ((name, value),)

    def invocation_metadata(self) -> tuple[tuple[str, str | bytes], ...]:
        return self._pairs


def call(name: str, value: str | bytes) -> Call:
    return Call(cast("Context", FakeContext(name, value)))


def test_a_decent_request_id_is_kept() -> None:
    assert call("x-request-id", "abc-1").request_id == "abc-1"


@pytest.mark.parametrize("value", INDECENT)
def test_another_request_id_is_replaced(value: str | bytes) -> None:
    given = call("x-request-id", value)

    assert len(given.request_id) == 32
    assert given.request_id == given.request_id


def test_a_long_request_id_is_shortened() -> None:
    assert call("x-request-id", "x" * 129).request_id == "x" * 128


def test_the_trace_of_the_caller_is_kept() -> None:
    assert call("traceparent", TRACE).trace == (TRACE, "")


NO_TRACES = ("a password", TRACE.upper(), f"{TRACE}-more", f"ff{TRACE[2:]}", TRACE[:-1])


@pytest.mark.parametrize("value", [*INDECENT, *NO_TRACES])
def test_what_is_no_trace_is_dropped(value: str | bytes) -> None:
    assert call("traceparent", value).trace == ("", "")
