"""Each write is measured, and counted by what came of it."""

import pytest

from pointsman_server.domain.errors import PointsmanError, RouteExists, StoreUnavailable
from pointsman_server.rpc.methods.write_meter import ACTIONS, WriteMeter
from pointsman_server.telemetry.metrics import Metrics


@pytest.fixture
def metrics() -> Metrics:
    return Metrics()


def counted(metrics: Metrics, action: str, outcome: str) -> float | None:
    return metrics.registry.get_sample_value("pointsman_write_requests_total", {"action": action, "outcome": outcome})


async def succeed() -> str:
    return "done"


async def fail(error: Exception) -> str:
    raise error


def test_what_has_not_happened_shows_as_zero(metrics: Metrics) -> None:
    WriteMeter(metrics)
    assert {counted(metrics, action, "failed") for action in ACTIONS} == {0.0}


async def test_a_write_that_succeeds_is_answered_and_measured(metrics: Metrics) -> None:
    assert await WriteMeter(metrics).measured("commit", succeed()) == "done"
    assert counted(metrics, "commit", "ok") == 1
    assert metrics.registry.get_sample_value("pointsman_write_seconds_count", {"action": "commit"}) == 1


@pytest.mark.parametrize(
    ("error", "outcome"),
    [(RouteExists("a/b/c/d", 7), "refused"), (StoreUnavailable(), "failed"), (LookupError("a bug"), "failed")],
    ids=["refused", "unavailable", "bug"],
)
async def test_a_write_that_is_refused_is_not_one_that_failed(metrics: Metrics, error: Exception, outcome: str) -> None:
    with pytest.raises(type(error)):
        await WriteMeter(metrics).measured("revert", fail(error))
    assert counted(metrics, "revert", outcome) == 1
    assert isinstance(error, PointsmanError) == (outcome == "refused" or isinstance(error, StoreUnavailable))
