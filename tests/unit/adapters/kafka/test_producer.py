"""Which messages of a batch count as sent."""

from typing import cast

from confluent_kafka import KafkaError, Message

from pointsman_server.adapters.kafka.producer import _Deliveries

MESSAGE = cast("Message", None)
ERROR = KafkaError(KafkaError.MSG_SIZE_TOO_LARGE)


def settle(batch: _Deliveries, *indexes: int) -> None:
    for index in indexes:
        batch.settle(index, None, MESSAGE)


def test_messages_count_from_the_front_whatever_order_they_are_acknowledged_in() -> None:
    batch = _Deliveries(3)
    settle(batch, 2, 1)
    assert (batch.front, batch.over) == (0, False)
    settle(batch, 0)
    assert (batch.front, batch.over, batch.error) == (3, True, None)


def test_a_failed_message_ends_the_batch_and_those_behind_it_do_not_count() -> None:
    batch = _Deliveries(3)
    settle(batch, 0, 2)
    batch.settle(1, ERROR, MESSAGE)
    assert (batch.front, batch.over, batch.error) == (1, True, ERROR)


def test_the_first_error_is_kept() -> None:
    batch = _Deliveries(2)
    batch.fail(ERROR)
    batch.fail(KafkaError(KafkaError.BROKER_NOT_AVAILABLE))
    assert batch.error is ERROR


def test_a_batch_that_was_cut_waits_only_for_the_queued_messages() -> None:
    batch = _Deliveries(3)
    batch.cut(1, ERROR)
    assert not batch.over
    settle(batch, 0)
    assert (batch.front, batch.over, batch.error) == (1, True, ERROR)


def test_an_empty_batch_is_over() -> None:
    assert _Deliveries(0).over
