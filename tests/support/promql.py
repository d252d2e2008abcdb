"""What expressions of PromQL name, and the changes that tests make to them."""

import re
from collections.abc import Iterator

# What is set aside first: in it, a sign or a word is no operator and no metric.
QUOTED = re.compile(r'"(?:[^"\\]|\\.)*"')
MATCHERS = re.compile(rf"\{{(?:[^}}\"]|{QUOTED.pattern})*\}}")
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left|group_right)\s*\([^)]*\)")
RANGE = re.compile(r"\[[^\]]*\]")
NUMBER = re.compile(r"\b\d[\w.]*")
OFFSET = re.compile(r"\boffset\s+\w+")
# With the parenthesis after it, if there is one: then it is a function or an operator.
WORD = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*(?:\s*\()?")
COMPARISON = re.compile(r"(==|!=|<=|>=|<|>)(?!\s*bool\b)")
KEYWORDS = {"and", "or", "unless", "bool", "offset", "inf", "nan", "Inf", "NaN"}


def metrics(expression: str) -> set[str]:
    """Return the names of the metrics in an expression."""
    text = expression
    for aside in (QUOTED, MATCHERS, GROUPING, RANGE, NUMBER):
        text = aside.sub(" ", text)
    return {word for word in WORD.findall(text) if not word.endswith("(")} - KEYWORDS


def with_window(expression: str, window: str) -> str:
    """Make every range, those of Grafana's variables too, and every offset as long as ``window``."""
    return OFFSET.sub(f"offset {window}", RANGE.sub(f"[{window}]", expression))


def with_values(expression: str) -> str:
    """Let each comparison return 0 or 1 for the series that it compares, in place of leaving out those that differ.

    So the result has the series of the left side: there are none only where what is compared is not there.
    """
    return "".join(piece if is_aside else COMPARISON.sub(r"\1 bool", piece) for piece, is_aside in _pieces(expression))


def _pieces(expression: str) -> Iterator[tuple[str, bool]]:
    """Split off the texts and the matchers, in which a sign compares nothing."""
    place = 0
    for found in re.finditer(rf"{MATCHERS.pattern}|{QUOTED.pattern}", expression):
        yield expression[place : found.start()], False
        yield found[0], True
        place = found.end()
    yield expression[place:], False
