"""What the health and the metrics of a running server mean."""

from typing import Any

import pytest

from pointsman_server.diagnosis.finding import Finding, Severity
from pointsman_server.diagnosis.running_server import (
    CONSUMER_LAG,
    DAY_SECONDS,
    DEPENDENCIES,
    FEED_LAG,
    XDS_AGE_SECONDS,
    Sample,
    judge,
)

NOW = 1_800_000_000.0
READY: dict[str, Any] = {"status": "ready", "draining": False, "dependencies": {}}


def problems(health: dict[str, Any] = READY, *samples: Sample) -> list[Finding]:
    return [finding for finding in judge(health, samples, NOW) if finding.severity is not Severity.OK]


def sample(name: str, value: float, **labels: str) -> Sample:
    return Sample(name, labels, value)


def test_a_server_without_problems_has_none() -> None:
    health = READY | {"dependencies": {name: {"up": True} for name in DEPENDENCIES}}
    assert problems(health) == []
    assert {finding.subject for finding in judge(health, (), NOW)} == {"server", *DEPENDENCIES}


@pytest.mark.parametrize("name", DEPENDENCIES)
def test_a_dependency_that_is_down_says_since_when_what_works_and_what_to_do(name: str) -> None:
    state = {"up": False, "detail": "does not answer", "since": "2026-11-27T11:00:00Z"}

    (found,) = problems(READY | {"status": "degraded", "dependencies": {name: state}})

    assert (found.severity, found.subject, found.what) == (Severity.ERROR, name, "does not answer")
    assert found.since == "2026-11-27T11:00:00Z"
    assert found.works
    assert found.remedy


@pytest.mark.parametrize(
    ("health", "words"),
    [
        ({"status": "not ready", "draining": False, "waiting_for": "the API keys"}, "waits for the API keys"),
        ({"status": "not ready", "draining": False}, "cannot answer reads"),
        ({"status": "not ready", "draining": True}, "is stopping"),
    ],
)
def test_a_server_that_is_not_ready_says_why(health: dict[str, Any], words: str) -> None:
    (found,) = problems(health)
    assert words in found.what


@pytest.mark.parametrize(
    ("bad", "fine", "subject"),
    [
        (sample("pointsman_clock_skew_seconds", 1.5), sample("pointsman_clock_skew_seconds", 0.5), "clock"),
        (sample("pointsman_worker_restarts_total", 1), sample("pointsman_worker_restarts_total", 0), "workers"),
        (sample("pointsman_cache_breaker_open", 1), sample("pointsman_cache_breaker_open", 0), "cache"),
        (sample("pointsman_store_restored", 1), sample("pointsman_store_restored", 0), "epoch"),
        (sample("pointsman_store_pool_waiting", 3), sample("pointsman_store_pool_waiting", 0), "pool"),
        (
            sample("pointsman_feed_lag_revisions", FEED_LAG + 1),
            sample("pointsman_feed_lag_revisions", FEED_LAG),
            "feed",
        ),
        (
            sample("pointsman_consumer_lag_messages", CONSUMER_LAG + 1, consumer="audit"),
            sample("pointsman_consumer_lag_messages", CONSUMER_LAG, consumer="audit"),
            "consumer audit",
        ),
        (
            sample("pointsman_poison_messages_total", 1, consumer="cache"),
            sample("pointsman_poison_messages_total", 0, consumer="cache"),
            "consumer cache",
        ),
        (
            sample("pointsman_insecure", 1, what="anonymous"),
            sample("pointsman_insecure", 0, what="anonymous"),
            "security",
        ),
        (
            sample("pointsman_xds_table_age_seconds", XDS_AGE_SECONDS + 1),
            sample("pointsman_xds_table_age_seconds", XDS_AGE_SECONDS),
            "xDS",
        ),
        (sample("pointsman_xds_refusals_total", 1, type="CDS"), sample("pointsman_xds_refusals_total", 0), "xDS"),
        (sample("pointsman_xds_not_carried", 1, kind="grpc"), sample("pointsman_xds_not_carried", 0), "xDS"),
        (sample("pointsman_xds_collisions", 1), sample("pointsman_xds_collisions", 0), "xDS"),
    ],
)
def test_a_metric_beyond_its_bound_is_a_finding(bad: Sample, fine: Sample, subject: str) -> None:
    (found,) = problems(READY, bad)
    assert found.subject == subject
    assert found.remedy
    assert problems(READY, fine) == []


def test_a_relay_that_waits_says_how_much_and_how_long() -> None:
    lag = sample("pointsman_relay_lag_revisions", 40), sample("pointsman_relay_lag_seconds", 12)
    (found,) = problems(READY, *lag)
    assert "40 changes wait for Kafka, the oldest for 12 s" in found.what


@pytest.mark.parametrize(("streams", "found"), [(80, 0), (81, 1)])
def test_a_server_that_takes_few_more_streams_of_xds_says_so(streams: float, found: int) -> None:
    ours = [sample("pointsman_xds_streams", value, kind=kind) for kind, value in (("grpc", streams - 1), ("envoy", 1))]
    limit = sample("pointsman_xds_stream_limit", 100)
    assert len(problems(READY, *ours, limit)) == found


@pytest.mark.parametrize(("days", "severity"), [(-1, Severity.ERROR), (13, Severity.WARNING), (15, Severity.OK)])
def test_a_certificate_that_ends_soon_is_named(days: float, severity: Severity) -> None:
    end = sample("pointsman_certificate_expiry_timestamp_seconds", NOW + days * DAY_SECONDS, certificate="server")
    found = [finding for finding in judge(READY, [end], NOW) if finding.subject == "certificate server"]
    assert [finding.severity for finding in found] == [severity]


def test_of_several_workers_the_worst_counts() -> None:
    skews = [sample("pointsman_clock_skew_seconds", value, pid=str(value)) for value in (0.0, 3.0)]
    (found,) = problems(READY, *skews)
    assert "by 3.0 s" in found.what
