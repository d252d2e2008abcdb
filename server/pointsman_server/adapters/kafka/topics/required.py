"""The topics of a server: created where they are missing, if that is allowed."""

import logging

from pointsman_server.adapters.kafka.cluster import KafkaCluster
from pointsman_server.adapters.kafka.topics.needs import NewTopic, changes_topic, creation_of, letters_topic
from pointsman_server.config.settings import Settings
from pointsman_server.ports.broker import BrokerUnavailable

logger = logging.getLogger(__name__)

# How long one question to the brokers may take. A stop waits for the question that is under way.
ANSWER_SECONDS = 3.0


class RequiredTopics:
    """The topic of the changes and that of the dead letters. Each problem is logged once, until another or none."""

    def __init__(self, settings: Settings, cluster: KafkaCluster) -> None:
        self._cluster = cluster
        self._changes, self._letters = changes_topic(settings), letters_topic(settings)
        self._logged: dict[str, str] = {}

    async def ready(self) -> bool:
        """Create the topics if they are missing. Returns False while that of the changes is not there.

        Without the topic of the dead letters all goes on, until there is one.
        """
        if not await self.has_changes():
            return False
        await self.has_letters()
        return True

    async def has_changes(self) -> bool:
        """Create the topic of the changes if it is missing. Returns False while it is not there."""
        return await self._has(self._changes)

    async def has_letters(self) -> bool:
        """Do the same for that of the dead letters."""
        return await self._has(self._letters)

    async def _has(self, topic: NewTopic) -> bool:
        # Imported on use: not every server uses Kafka.
        from pointsman_server.adapters.kafka.topics.creation import TopicRefused, ensure_topic

        try:
            warning = await ensure_topic(self._cluster, topic, ANSWER_SECONDS)
        except BrokerUnavailable as error:
            if isinstance(error, TopicRefused):
                self._cluster.refusals.tell(creation_of(topic.name), str(error), keep=True)
            self._log(topic.name, str(error))
            return False
        self._cluster.refusals.clear(creation_of(topic.name))
        self._log(topic.name, warning or "")
        return True

    def _log(self, topic: str, problem: str) -> None:
        if problem and problem != self._logged.get(topic):
            logger.warning("%s", problem)
        self._logged[topic] = problem
