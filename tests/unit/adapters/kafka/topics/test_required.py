"""adapters.kafka.topics.required: both topics are created as the settings say, and each problem is logged once."""

import logging

import pytest

from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.topics.creation import TopicRefused
from pointsman_server.adapters.kafka.topics.needs import NewTopic
from pointsman_server.adapters.kafka.topics.required import RequiredTopics
from pointsman_server.config.settings import Settings
from pointsman_server.ports.broker import BrokerUnavailable

SETTINGS = Settings(kafka_topic="changes", kafka_partitions=3, kafka_replication_factor=2, kafka_min_insync_replicas=1)
CHANGES, LETTERS = NewTopic("changes", 3, 2, 1), NewTopic("changes.dead-letters", 1, 2, 1)


class Scene:
    """Topics on a Kafka that answers with what ``answers`` has for a topic: a warning, None or an error."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> None:
        self.answers: dict[str, str | Exception] = {}
        self.created: list[NewTopic] = []
        self._caplog = caplog
        monkeypatch.setattr("pointsman_server.adapters.kafka.topics.creation.ensure_topic", self._ensure)
        self.cluster = KafkaCluster("a:1")
        self.topics = RequiredTopics(SETTINGS, self.cluster)

    @property
    def warnings(self) -> list[str]:
        return [record.getMessage() for record in self._caplog.records if record.levelno == logging.WARNING]

    async def _ensure(self, _cluster: object, topic: NewTopic, _seconds: float) -> str | None:
        answer = self.answers.get(topic.name)
        if isinstance(answer, Exception):
            raise answer
        self.created.append(topic)
        return answer


@pytest.fixture
def scene(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> Scene:
    return Scene(monkeypatch, caplog)


async def test_both_topics_are_created_as_the_settings_say(scene: Scene) -> None:
    assert await scene.topics.ready()
    assert scene.created == [CHANGES, LETTERS]
    assert scene.warnings == []


async def test_without_the_topic_of_the_changes_nothing_goes_on_and_it_is_logged_once(scene: Scene) -> None:
    scene.answers["changes"] = BrokerUnavailable("has no topic changes")
    assert [await scene.topics.ready() for _ in range(3)] == [False] * 3
    assert scene.created == []
    assert scene.warnings == ["has no topic changes"]
    scene.answers["changes"] = BrokerUnavailable("does not answer")
    assert not await scene.topics.ready()
    assert scene.cluster.refusals.current() == []
    del scene.answers["changes"]
    assert await scene.topics.ready()
    scene.answers["changes"] = BrokerUnavailable("does not answer")
    assert not await scene.topics.ready()
    assert scene.warnings == ["has no topic changes", "does not answer", "does not answer"]


async def test_without_the_topic_of_the_dead_letters_all_else_goes_on(scene: Scene) -> None:
    scene.answers["changes.dead-letters"] = TopicRefused("has no topic changes.dead-letters")
    assert await scene.topics.ready()
    assert scene.cluster.refusals.current() == ["has no topic changes.dead-letters"]
    assert scene.created == [CHANGES]
    assert scene.warnings == ["has no topic changes.dead-letters"]


async def test_another_number_of_partitions_is_warned_of_once(scene: Scene) -> None:
    scene.answers["changes"] = "it has 5 partitions"
    assert await scene.topics.ready()
    assert await scene.topics.ready()
    assert scene.warnings == ["it has 5 partitions"]
