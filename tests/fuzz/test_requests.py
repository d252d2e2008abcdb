"""Whatever the bytes of a request are: a response, or a status of the table that leaks nothing."""

from tests.fuzz.conftest import Fuzz


def test_any_bytes_end_as_documented(fuzz: Fuzz) -> None:
    fuzz("request_bytes")
