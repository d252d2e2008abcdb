"""What the suite writes into the topic as poison is poison to the server."""

import random

import pytest

from pointsman_server.adapters.kafka.decoder import NotAChange, change_from_bytes
from pointsman_server.domain.routes import RouteKey
from tests.faults.messages import garbage


def test_garbage_is_never_a_change_and_comes_under_the_key_of_a_route() -> None:
    dice = random.Random(1)
    for _ in range(500):
        key, value = garbage(dice)
        RouteKey.parse(key)
        with pytest.raises(NotAChange):
            change_from_bytes(value or b"")
