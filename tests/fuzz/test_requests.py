"""Any bytes of a request get a response, or a documented status that leaks nothing."""

from tests.fuzz.conftest import Fuzz


def test_any_bytes_end_as_documented(fuzz: Fuzz) -> None:
    fuzz("request_bytes")
