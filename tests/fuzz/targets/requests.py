"""Requests as messages: every method, every field, with what may be right and what is not."""

from random import Random

from hypothesis import strategies as st

from tests.fuzz.calls import Rig
from tests.fuzz.hostile import fill, unknown_fields

RIG = Rig()
METHODS = tuple(RIG.requests)

INPUTS = st.tuples(st.sampled_from(METHODS), st.randoms(use_true_random=False), st.integers(0, 23))


def check(value: tuple[str, Random, int]) -> None:
    """Call a method with a message made for it."""
    method, random, mood = value
    message = RIG.requests[method]()
    fill(random, message)
    rest = unknown_fields(random) if random.random() > 0.95 else b""
    RIG.judge(method, message.SerializeToString() + rest, mood=mood)
