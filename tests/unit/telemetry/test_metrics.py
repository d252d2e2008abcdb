"""telemetry.metrics: what a scraper gets, from one process and from several."""

import re
from pathlib import Path

import pytest
from prometheus_client import values

from pointsman_server.telemetry.metrics import Metrics

OPENMETRICS = "application/openmetrics-text; version=1.0.0"


def sample(text: str, name: str) -> float:
    (value,) = re.findall(rf"^{re.escape(name)} (\S+)$", text, re.MULTILINE)
    return float(value)


def text_of(metrics: Metrics, accept: str = "") -> str:
    return metrics.render(accept)[0].decode()


def test_a_counter_is_there_once_it_counted() -> None:
    metrics = Metrics()
    metrics.looked_up("local", "hit")
    metrics.looked_up("local", "hit")
    metrics.looked_up("redis", "miss")

    assert sample(text_of(metrics), 'pointsman_cache_lookups_total{layer="local",outcome="hit"}') == 2
    assert sample(text_of(metrics), 'pointsman_cache_lookups_total{layer="redis",outcome="miss"}') == 1


def test_a_reload_that_never_failed_is_a_zero_and_no_gap() -> None:
    metrics = Metrics()
    count = metrics.renewals("policy")
    count(True)

    assert sample(text_of(metrics), 'pointsman_access_renewals_total{outcome="ok",what="policy"}') == 1
    assert sample(text_of(metrics), 'pointsman_access_renewals_total{outcome="failed",what="policy"}') == 0


def test_the_pool_is_split_into_idle_and_used() -> None:
    metrics = Metrics()
    metrics.pool(lambda: {"pool_size": 5, "pool_available": 2, "requests_waiting": 7})

    assert sample(text_of(metrics), 'pointsman_store_pool_connections{state="idle"}') == 2
    assert sample(text_of(metrics), 'pointsman_store_pool_connections{state="used"}') == 3
    assert sample(text_of(metrics), "pointsman_store_pool_waiting") == 7


def test_a_call_over_a_rate_is_counted_by_its_limit() -> None:
    metrics = Metrics()
    metrics.limited("tenant.writes")

    assert sample(text_of(metrics), 'pointsman_rate_limited_total{limit="tenant.writes"}') == 1


@pytest.mark.parametrize(("accept", "end"), [("", ""), (OPENMETRICS, "# EOF\n")])
def test_the_format_is_that_of_the_scraper(accept: str, end: str) -> None:
    body, media_type = Metrics().render(accept)

    assert body.decode().endswith(end)
    assert media_type.startswith((accept or "text/plain").partition(";")[0])


def test_workers_are_rendered_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PROMETHEUS_MULTIPROC_DIR", str(tmp_path))
    for pid in (1, 2):
        monkeypatch.setattr(
            "prometheus_client.metrics.values.ValueClass", values.MultiProcessValue(lambda pid=pid: pid)
        )
        metrics = Metrics()
        metrics.looked_up("local", "hit")
        metrics.feed_lag.set(pid * 10)

    text = text_of(metrics)
    assert sample(text, 'pointsman_cache_lookups_total{layer="local",outcome="hit"}') == 2
    assert sample(text, "pointsman_feed_lag_revisions") == 20
