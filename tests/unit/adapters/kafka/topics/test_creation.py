"""Which cluster creates topics on request, and which is asked to."""

from collections.abc import Iterator
from contextlib import contextmanager
from types import SimpleNamespace
from typing import Any

import pytest
from confluent_kafka import KafkaError

from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.topics import creation
from pointsman_server.adapters.kafka.topics.needs import NewTopic

NAME = "route-events"


class Brokers:
    """A cluster that names no controller; ``creates``: whether it creates a topic that somebody asks for."""

    def __init__(self, *, creates: bool) -> None:
        self.creates = creates
        self.created: list[str] = []

    def list_topics(self, _topic: str, timeout: float) -> Any:
        error = None if self.creates else KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
        topic = SimpleNamespace(error=error, partitions={})
        return SimpleNamespace(controller_id=-1, brokers={1: "here"}, topics={NAME: topic})


@pytest.mark.parametrize("creates", [True, False])
async def test_a_real_cluster_without_a_controller_for_a_moment_is_asked_to_create(
    monkeypatch: pytest.MonkeyPatch, creates: bool
) -> None:
    brokers = Brokers(creates=creates)

    @contextmanager
    def client(*_: object) -> Iterator[Brokers]:
        yield brokers

    monkeypatch.setattr(creation, "admin_client", client)
    monkeypatch.setattr(creation, "AdminClient", lambda _config: brokers)
    monkeypatch.setattr(creation, "create_topic", lambda *_args: brokers.created.append(NAME))

    assert await creation.ensure_topic(KafkaCluster("127.0.0.1:1"), NewTopic(NAME, 12, 1)) is None

    assert brokers.created == ([] if creates else [NAME])
