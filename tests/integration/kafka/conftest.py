"""The clusters that the adapters run on: real Apache Kafka, and librdkafka's mock cluster."""

import pytest

from pointsman_server.adapters.kafka import (
    KafkaCluster,
)
from tests.support.kafka import KafkaBroker


@pytest.fixture
def real(kafka_broker: KafkaBroker) -> KafkaCluster:
    return KafkaCluster(kafka_broker.bootstrap_servers)


@pytest.fixture(params=["real", "mock"])
def cluster(request: pytest.FixtureRequest) -> KafkaCluster:
    if request.param == "mock":
        return KafkaCluster(request.getfixturevalue("kafka_mock"))
    return KafkaCluster(request.getfixturevalue("kafka_broker").bootstrap_servers)
