"""Requests as messages: every method, every field, with what may be right and what is not; by callers of every kind."""

from random import Random

from hypothesis import strategies as st

from tests.fuzz.calls import CALLERS, Rig
from tests.fuzz.hostile import fill, unknown_fields

RIG, GUARDED = Rig(), Rig(guarded=True)
METHODS = tuple(RIG.requests)

INPUTS = st.tuples(
    st.sampled_from(METHODS),
    st.randoms(use_true_random=False),
    st.integers(0, 23),
    # Half of them without a guard, who keeps most requests from what is behind.
    st.one_of(st.none(), st.sampled_from(sorted(CALLERS))),
)


def check(value: tuple[str, Random, int, str | None]) -> None:
    """Call a method with a message made for it."""
    method, random, mood, caller = value
    message = RIG.requests[method]()
    fill(random, message)
    rest = unknown_fields(random) if random.random() > 0.95 else b""
    rig = RIG if caller is None else GUARDED
    rig.judge(method, message.SerializeToString() + rest, CALLERS.get(caller or "", ()), mood=mood)
