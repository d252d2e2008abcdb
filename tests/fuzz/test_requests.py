"""Any bytes of a request get a response, or a documented status that leaks nothing."""

from tests.fuzz.conftest import Fuzz


def test_any_bytes_end_as_documented(fuzz: Fuzz) -> None:
    fuzz("request_bytes")


def test_any_call_over_asgi_ends_by_the_specification(fuzz: Fuzz) -> None:
    fuzz("asgi_calls")


def test_what_the_fast_path_serves_is_valid_and_chosen_by_the_rule(fuzz: Fuzz) -> None:
    fuzz("fast_path_bytes")


def test_any_question_about_xds_clients_is_answered_without_what_is_hidden(fuzz: Fuzz) -> None:
    fuzz("xds_question_bytes")
