from typing import Any, cast

from confluent_kafka import Message

from pointsman_server.adapters.kafka.dead_letters import DeadLetter, _letter, dead_letter_topic


class FakeMessage:
    def __init__(self, headers: list[tuple[str, Any]] | None, value: bytes | None) -> None:
        self._headers, self._value = headers, value

    def headers(self) -> list[tuple[str, Any]] | None:
        return self._headers

    def value(self) -> bytes | None:
        return self._value


def letter(headers: list[tuple[str, Any]] | None, value: bytes | None = b"payload") -> DeadLetter:
    return _letter(cast("Message", FakeMessage(headers, value)))


def test_the_topic_is_named_after_that_of_the_changes() -> None:
    assert dead_letter_topic("route-events") == "route-events.dead-letters"


def test_a_letter_has_its_origin_its_problem_and_its_payload() -> None:
    headers = [("topic", b"t"), ("partition", b"1"), ("offset", b"17"), ("problem", b"no protobuf")]
    assert letter(headers) == DeadLetter("t", "1", "17", "no protobuf", b"payload")


def test_missing_and_unprintable_headers_become_question_marks() -> None:
    assert letter(None, None) == DeadLetter("?", "?", "?", "?", b"")
    assert letter([("topic", b"a\x1b[2J\nb\xff"), ("offset", None)]).topic == "a?[2J?b\ufffd"


def test_the_payload_is_not_part_of_the_text() -> None:
    assert "payload" not in repr(letter(None))
