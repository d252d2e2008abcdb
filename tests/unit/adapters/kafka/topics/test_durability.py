"""adapters.kafka.topics.durability: which replicas are warned of."""

import pytest

from pointsman_server.adapters.kafka.topics.durability import Durability


@pytest.mark.parametrize(
    "fine",
    [
        Durability("t", brokers=1, replicas=1, min_insync=1),
        Durability("t", brokers=2, replicas=2, min_insync=1),
        Durability("t", brokers=3, replicas=3, min_insync=2),
        Durability("t", brokers=3, replicas=3, min_insync=None),
        Durability("t", brokers=9, replicas=4, min_insync=2),
    ],
)
def test_what_survives_a_broker_is_not_warned_of(fine: Durability) -> None:
    assert list(fine.warnings()) == []


@pytest.mark.parametrize(
    ("risky", "warning"),
    [
        (Durability("t", brokers=3, replicas=1, min_insync=1), "has too few replicas, 1 on 3 brokers"),
        (Durability("t", brokers=5, replicas=2, min_insync=1), "make it 3"),
        (Durability("t", brokers=2, replicas=1), "make it 2"),
        (Durability("t", brokers=3, replicas=3, incomplete=2, min_insync=2), "has 2 partitions with replicas that are"),
        (Durability("t", brokers=3, replicas=3, min_insync=1), "min.insync.replicas 1: a message may be on one broker"),
        (Durability("t", brokers=3, replicas=3, min_insync=3), "min.insync.replicas 3 of 3 replicas: nothing is"),
        (Durability("t", brokers=2, replicas=2, min_insync=2), "set it to 1"),
    ],
)
def test_what_does_not_is_said_in_one_sentence_that_says_what_to_do(risky: Durability, warning: str) -> None:
    (told,) = risky.warnings()
    assert told.startswith("topic t has ")
    assert warning in told
