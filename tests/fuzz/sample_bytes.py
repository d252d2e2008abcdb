"""A target that fails on purpose, for the tests of the harness."""

MODULES = ("tests.fuzz.sample_bytes",)
SEEDS = (b"abcd",)
WORDS = (b"bad input",)


def check(data: bytes) -> None:
    """Fail where a word comes, which no mutation of the seed makes by chance."""
    if b"bad input" in data:
        raise ValueError("this is the cause")
