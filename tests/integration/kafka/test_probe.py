"""The probe of the brokers."""

import pytest

from pointsman_server.adapters.kafka import (
    KafkaCluster,
    KafkaProbe,
)
from pointsman_server.ports.broker import BrokerUnavailable
from tests.support.kafka import free_port


async def test_an_unreachable_broker_is_named_without_its_secrets() -> None:
    address = f"127.0.0.1:{free_port()}"
    with pytest.raises(BrokerUnavailable, match=f"Kafka at {address} does not answer"):
        await KafkaProbe(KafkaCluster(address, {"sasl.password": "canary"}), timeout_seconds=0.5).check()
    assert "canary" not in repr(KafkaCluster(address, {"sasl.password": "canary"}))
