"""adapters.kafka.topics.needs: what each role needs, and the numbers of a new topic."""

import pytest

from pointsman_server.adapters.kafka.topics.needs import Needs, NewTopic, needs_of
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import ServerRole

API, RELAY, CACHE, AUDIT, _XDS = ServerRole
READ, WRITE = frozenset({"READ"}), frozenset({"WRITE"})


def needs(*roles: ServerRole) -> Needs:
    return needs_of(Settings(roles=frozenset(roles), kafka_topic="t", kafka_group_prefix="team"))


def test_each_role_needs_its_own_rights_and_groups() -> None:
    assert (needs(API).rights, needs(API).groups) == ({"t": READ}, ())
    assert (needs(RELAY).rights, needs(RELAY).groups) == ({"t": READ | WRITE}, ())
    assert (needs(AUDIT).rights, needs(AUDIT).groups) == ({"t": READ, "t.dead-letters": WRITE}, ("team-audit",))
    every = needs(*ServerRole)
    assert every.rights == {"t": READ | WRITE, "t.dead-letters": WRITE}
    assert every.groups == ("team-cache", "team-audit")
    assert every.topics == {"t": NewTopic("t", 12), "t.dead-letters": NewTopic("t.dead-letters", 1)}


@pytest.mark.parametrize(
    ("replicas", "min_insync", "brokers", "chosen"),
    [
        (0, 0, 1, (1, 1)),
        (0, 0, 2, (2, 1)),
        (0, 0, 3, (3, 2)),
        (0, 0, 9, (3, 2)),
        (5, 0, 3, (5, 4)),
        (0, 3, 9, (3, 3)),
        (0, 2, 1, (1, 1)),
        (2, 2, 3, (2, 2)),
    ],
)
def test_the_numbers_that_are_left_open_follow_the_brokers(
    replicas: int, min_insync: int, brokers: int, chosen: tuple[int, int]
) -> None:
    topic = NewTopic("t", 6, replicas, min_insync).on(brokers)
    assert (topic.name, topic.partitions) == ("t", 6)
    assert (topic.replicas, topic.min_insync) == chosen
