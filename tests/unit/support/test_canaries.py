"""The search for planted secrets: it finds them, whatever was done to them, and nothing else."""

import base64
import json
from urllib.parse import quote

import pytest

from tests.support.canaries import found

SECRET = "c4nary/+pässword?1"


def around(number: int) -> str:
    return f"{'x' * number}{SECRET}{'y' * (7 - number)}"


@pytest.mark.parametrize(
    "text",
    [
        SECRET,
        f"could not connect to postgresql://u:{SECRET}@host",
        f"postgresql://u:{quote(SECRET, safe='')}@host",
        SECRET.encode().hex(),
        *(base64.b64encode(around(number).encode()).decode() for number in range(6)),
        *(base64.urlsafe_b64encode(around(number).encode()).decode() for number in range(6)),
        base64.b64encode(f"user:{SECRET}".encode()).decode().rstrip("="),
    ],
)
def test_a_planted_secret_is_found(text: str) -> None:
    assert found({"log": text, "clean": "nothing"}, {"password": SECRET, "other": "c4nary-2"}) == ["password in log"]


def test_what_is_bytes_is_searched_too() -> None:
    assert found({"message": b"\x0a\x04" + SECRET.encode()}, {"password": SECRET}) == ["password in message"]


def test_nothing_is_found_where_nothing_is() -> None:
    text = json.dumps({"error": "c4nary", "masked": "postgresql://u:***@host", "id": "6334" * 20})

    assert found({"log": text}, {"password": SECRET}) == []
