"""Any requests of an xDS client are answered as the protocol says."""

from tests.fuzz.conftest import Fuzz


def test_any_requests_are_answered_by_what_they_ask_for(fuzz: Fuzz) -> None:
    fuzz("xds_request_bytes")
