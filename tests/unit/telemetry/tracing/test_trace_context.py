"""What is taken over of a caller's trace context, and what is not."""

import pytest

from pointsman_server.telemetry.tracing.trace_context import MOST_STATE, NO_TRACE, TraceContext, received

PARENT = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


@pytest.mark.parametrize(("flags", "sampled"), [("00", False), ("01", True), ("02", False), ("03", True)])
def test_the_lowest_bit_of_the_flags_says_whether_it_is_sampled(flags: str, sampled: bool) -> None:
    assert received(PARENT[:-2] + flags, "").sampled is sampled


def test_without_one_nothing_is_sampled() -> None:
    assert not NO_TRACE.sampled
    assert received("", "vendor=1") is NO_TRACE


@pytest.mark.parametrize(
    "parent",
    [
        "a password",
        PARENT.upper(),
        f"{PARENT}-more",
        f"ff{PARENT[2:]}",
        PARENT[:-1],
        f"00-{'0' * 32}-00f067aa0ba902b7-01",
        f"00-4bf92f3577b34da6a3ce929d0e0e4736-{'0' * 16}-01",
    ],
)
def test_what_is_no_trace_is_dropped_with_its_state(parent: str) -> None:
    assert received(parent, "vendor=1") is NO_TRACE


@pytest.mark.parametrize(("length", "kept"), [(MOST_STATE, True), (MOST_STATE + 1, False)])
def test_a_state_that_is_too_long_is_dropped(length: int, kept: bool) -> None:
    state = "v=" + "x" * (length - 2)
    assert received(PARENT, state) == TraceContext(PARENT, state if kept else "")
