"""The clusters that the adapters run on: real Apache Kafka, and librdkafka's mock cluster."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from pointsman_server.adapters.kafka import (
    KafkaCluster,
)
from tests.support import kafka
from tests.support.kafka import KafkaBroker
from tests.support.tools import require

if TYPE_CHECKING:
    from tests.support.kafka_secured import SecuredCluster


@pytest.fixture
def real(kafka_broker: KafkaBroker) -> KafkaCluster:
    return KafkaCluster(kafka_broker.bootstrap_servers)


@pytest.fixture(params=["real", "mock"])
def cluster(request: pytest.FixtureRequest) -> KafkaCluster:
    if request.param == "mock":
        return KafkaCluster(request.getfixturevalue("kafka_mock"))
    return KafkaCluster(request.getfixturevalue("kafka_broker").bootstrap_servers)


@pytest.fixture(scope="session")
def secured_kafka() -> Iterator["SecuredCluster"]:
    """Three brokers with TLS, SASL and an authorizer, shared by the session: tests take other users and topics."""
    from tests.support.kafka_secured import secured_cluster

    problem = kafka.available()
    require("Apache Kafka", problem is None, problem or "")
    with secured_cluster() as cluster:
        yield cluster
