"""What the setup of the engines means."""

from dataclasses import replace

import pytest

from pointsman_server.adapters.kafka.topics.durability import Durability
from pointsman_server.adapters.postgres.inspection import PostgresFacts
from pointsman_server.adapters.redis.diagnostics.inspection import RedisFacts
from pointsman_server.diagnosis.engines import judge_postgres, judge_redis, judge_topic
from pointsman_server.diagnosis.finding import Severity

POSTGRES = PostgresFacts("18.1", "on", "on", "on", False, 100, 3, 20)
REDIS = RedisFacts("Redis at r:6379", "7.4", "master", 256 << 20, "allkeys-lru", 0)
TOPIC = Durability("route-events", 3, 3, 0, 2)


def test_what_is_set_up_well_is_ok() -> None:
    findings = [*judge_postgres(POSTGRES, 20, ""), *judge_redis(REDIS), *judge_topic("route-events", TOPIC)]
    assert [finding.severity for finding in findings] == [Severity.OK] * 3


@pytest.mark.parametrize(
    ("facts", "severity", "words"),
    [
        (replace(POSTGRES, fsync="off"), Severity.ERROR, "fsync is off"),
        (replace(POSTGRES, full_page_writes="off"), Severity.ERROR, "full_page_writes is off"),
        (replace(POSTGRES, synchronous_commit="off"), Severity.ERROR, "loses writes that were answered OK"),
        (replace(POSTGRES, standby=True), Severity.ERROR, "a standby, which takes no writes"),
        (replace(POSTGRES, connections=90), Severity.WARNING, "90 of 97 connections are in use"),
        (replace(POSTGRES, max_connections=22), Severity.WARNING, "may open 20 connections (2 x 10)"),
    ],
)
def test_postgres(facts: PostgresFacts, severity: Severity, words: str) -> None:
    found = [finding for finding in judge_postgres(facts, 20, "2 x 10") if words in finding.what]
    assert [(finding.subject, finding.severity) for finding in found] == [("postgres", severity)]
    assert found[0].remedy


@pytest.mark.parametrize(
    ("facts", "severity", "words"),
    [
        (replace(REDIS, role="slave"), Severity.ERROR, "takes no writes"),
        (replace(REDIS, policy="noeviction"), Severity.WARNING, "refuses writes when its 256 MiB are full"),
        (replace(REDIS, evicted=7), Severity.WARNING, "evicted 7 keys"),
    ],
)
def test_redis(facts: RedisFacts, severity: Severity, words: str) -> None:
    (found,) = judge_redis(facts)
    assert (found.subject, found.severity) == ("Redis at r:6379", severity)
    assert words in found.what


def test_redis_without_a_limit_may_have_any_policy() -> None:
    (found,) = judge_redis(replace(REDIS, max_memory=0, policy="noeviction"))
    assert found.severity is Severity.OK


@pytest.mark.parametrize(
    ("durability", "severity", "words"),
    [
        (None, Severity.OK, "is not known"),
        (replace(TOPIC, replicas=1), Severity.WARNING, "too few replicas"),
        (replace(TOPIC, incomplete=2), Severity.WARNING, "not in sync"),
        (replace(TOPIC, min_insync=1), Severity.WARNING, "min.insync.replicas 1"),
        (replace(TOPIC, brokers=1, replicas=1), Severity.WARNING, "the only copy"),
    ],
)
def test_topic(durability: Durability | None, severity: Severity, words: str) -> None:
    found = [finding for finding in judge_topic("route-events", durability) if words in finding.what]
    assert [(finding.subject, finding.severity) for finding in found] == [("topic route-events", severity)]
