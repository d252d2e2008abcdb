"""Any fields of a request and any metadata end as documented, and nothing malformed is stored."""

from pointsman.v1.route_service_pb2 import DESCRIPTOR
from tests.fuzz.conftest import Fuzz


def test_any_message_ends_as_documented(fuzz: Fuzz) -> None:
    fuzz("requests")


def test_any_metadata_ends_as_documented(fuzz: Fuzz) -> None:
    fuzz("metadata")


def test_no_method_is_left_out() -> None:
    from tests.fuzz.targets.requests import METHODS

    service = DESCRIPTOR.services_by_name["RouteService"]
    unary = [each.name for each in service.methods if not (each.client_streaming or each.server_streaming)]
    assert sorted(unary) == sorted(METHODS)


def test_any_stream_of_a_watch_is_taken_whole_or_refused(fuzz: Fuzz) -> None:
    fuzz("watch_bytes")


def test_any_changes_are_undone_exactly_or_not_at_all(fuzz: Fuzz) -> None:
    fuzz("reverts")
