"""Any bytes as a URL, a key, a label, a page token, a Kafka message or an entry of the shared cache."""

from tests.fuzz.conftest import Fuzz


def test_client_server_and_protos_have_the_same_rules(fuzz: Fuzz) -> None:
    fuzz("rule_bytes")


def test_any_page_token_is_a_page_or_refused(fuzz: Fuzz) -> None:
    fuzz("page_token_bytes")


def test_any_message_of_the_topic_is_a_change_or_not(fuzz: Fuzz) -> None:
    fuzz("change_bytes")


def test_any_entry_of_the_cache_is_ours_or_a_miss(fuzz: Fuzz) -> None:
    fuzz("cached_value_bytes")
