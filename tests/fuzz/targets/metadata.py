"""What comes beside a request: ids and trace contexts of any text, of calls that are answered and of refused ones."""

from hypothesis import strategies as st

from tests.fuzz.calls import CALLERS, Metadata, Rig

RIG, GUARDED = Rig(), Rig(guarded=True)

TEXTS = st.one_of(
    st.text(max_size=20),
    st.text(st.characters(codec="latin-1"), max_size=140),
    st.sampled_from(("", "ok", "x" * 128, "x" * 129, "a\0b", "é", "a\r\nb", " ", "\x7f", "\x1b[31m")),
    st.just("00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
)
NAMES = st.sampled_from(("x-request-id", "traceparent", "authorization", "x-other"))
KEY = b"\x0a\x0e\x0a\x01a\x12\x01b\x1a\x01c\x22\x03new"
BODIES = (
    ("Create", KEY + b"\x12\x12https://a.internal"),
    ("Create", KEY),
    ("Delete", KEY),
    ("Resolve", KEY),
    ("Resolve", b"\xff"),
    ("List", b""),
)

INPUTS = st.tuples(
    st.sampled_from(BODIES),
    st.lists(st.tuples(NAMES, st.one_of(TEXTS, st.binary(max_size=8))), max_size=4),
    st.integers(0, 23),
    st.one_of(st.none(), st.sampled_from(sorted(CALLERS))),
)


def check(value: tuple[tuple[str, bytes], Metadata, int, str | None]) -> None:
    """Make a call with this metadata."""
    (method, body), metadata, mood, caller = value
    RIG.judge(method, body, metadata, mood=mood)
    if caller is not None:
        GUARDED.judge(method, body, [*metadata, *CALLERS[caller]], mood=mood)
