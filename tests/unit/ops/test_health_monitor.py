"""What is up, what is down, and whether the server is ready."""

import asyncio
import contextlib

import pytest

from pointsman_server.domain.errors import StoreUnavailable
from pointsman_server.ops.health_monitor import Check, DependencyDown, DependencyState, HealthMonitor, MustNotServe


class Dependency:
    """A check that does what it is told."""

    def __init__(self, failure: Exception | None = None) -> None:
        self.failure = failure
        self.checks = 0

    async def __call__(self) -> None:
        self.checks += 1
        if self.failure:
            raise self.failure


class Callback:
    """Who is told after every round."""

    def __init__(self) -> None:
        self.readiness: list[bool] = []
        self.three = asyncio.Event()

    async def __call__(self, monitor: HealthMonitor) -> None:
        self.readiness.append(monitor.ready)
        if len(self.readiness) == 3:
            self.three.set()


@pytest.fixture
def postgres() -> Dependency:
    return Dependency()


@pytest.fixture
def redis() -> Dependency:
    return Dependency()


@pytest.fixture
def told() -> Callback:
    return Callback()


@pytest.fixture
def monitor(postgres: Dependency, redis: Dependency, told: Callback) -> HealthMonitor:
    checks = {"postgres": postgres, "redis": redis}
    return HealthMonitor(checks, required=frozenset({"postgres"}), changed=told, interval=0.0, patience=30.0)


def test_before_the_first_round_nothing_is_up(monitor: HealthMonitor) -> None:
    assert not monitor.ready
    assert monitor.states["redis"] == DependencyState("redis", required=False, up=False, detail="not checked yet")


async def test_since_when_a_dependency_is_up_or_down_is_kept(postgres: Dependency, told: Callback) -> None:
    moments = iter((100.0, 200.0, 300.0))
    monitor = HealthMonitor({"postgres": postgres}, required=frozenset(), changed=told, now=lambda: next(moments))
    seen = []
    for failure in (None, None, DependencyDown("down"), DependencyDown("otherwise"), None):
        postgres.failure = failure
        await monitor.round()
        seen.append(monitor.states["postgres"].since)
    assert seen == [100.0, 100.0, 200.0, 200.0, 300.0]


async def test_what_answers_is_up(monitor: HealthMonitor) -> None:
    await monitor.round()
    assert monitor.ready
    assert monitor.states == {
        "postgres": DependencyState("postgres", required=True, up=True, detail="ok"),
        "redis": DependencyState("redis", required=False, up=True, detail="ok"),
    }


async def test_without_something_required_the_server_is_not_ready(monitor: HealthMonitor, postgres: Dependency) -> None:
    postgres.failure = DependencyDown("PostgreSQL at db:5432 cannot be reached")
    await monitor.round()
    assert not monitor.ready
    assert monitor.states["postgres"].detail == "PostgreSQL at db:5432 cannot be reached"


async def test_without_something_else_the_server_is_ready_all_the_same(
    monitor: HealthMonitor, redis: Dependency
) -> None:
    redis.failure = DependencyDown("Redis does not answer")
    await monitor.round()
    assert monitor.ready
    assert not monitor.states["redis"].up


async def test_what_is_required_and_was_up_is_stood_in_for(
    told: Callback, postgres: Dependency, redis: Dependency
) -> None:
    checks: dict[str, Check] = {"postgres": postgres, "redis": redis}
    monitor = HealthMonitor(checks, required=frozenset({"postgres"}), stand_ins={"postgres": "redis"}, changed=told)
    postgres.failure = DependencyDown("down")
    await monitor.round()
    assert not monitor.ready  # never seen: nothing can be known of it

    postgres.failure = None
    await monitor.round()
    assert (monitor.ready, monitor.degraded) == (True, False)

    postgres.failure = DependencyDown("down")
    await monitor.round()
    assert (monitor.ready, monitor.degraded) == (True, True)

    redis.failure = DependencyDown("down too")
    await monitor.round()
    assert not monitor.ready


async def test_nothing_stands_in_for_what_would_answer_wrongly(
    told: Callback, postgres: Dependency, redis: Dependency
) -> None:
    checks: dict[str, Check] = {"postgres": postgres, "redis": redis}
    monitor = HealthMonitor(checks, required=frozenset({"postgres"}), stand_ins={"postgres": "redis"}, changed=told)
    await monitor.round()

    postgres.failure = MustNotServe("restored to an older state")
    await monitor.round()

    assert not monitor.ready


async def test_what_comes_back_is_up_again(monitor: HealthMonitor, postgres: Dependency) -> None:
    postgres.failure = DependencyDown("down")
    await monitor.round()
    postgres.failure = None
    await monitor.round()
    assert monitor.ready
    assert monitor.states["postgres"].detail == "ok"


async def test_a_dependency_that_answers_late_is_down_and_delays_no_other(told: Callback, redis: Dependency) -> None:
    async def hang() -> None:
        await asyncio.Event().wait()

    checks: dict[str, Check] = {"postgres": hang, "redis": redis}
    monitor = HealthMonitor(checks, required=frozenset({"postgres"}), changed=told, patience=0.01)
    await monitor.round()
    assert not monitor.ready
    assert monitor.states["postgres"].detail == "does not answer within 0.01 s"
    assert monitor.states["redis"].up


@pytest.mark.parametrize("failure", [StoreUnavailable(), OSError("password=SECRET"), RuntimeError("a bug")])
async def test_a_check_that_raises_anything_has_failed_and_the_others_go_on(
    monitor: HealthMonitor, postgres: Dependency, redis: Dependency, told: Callback, failure: Exception
) -> None:
    """Otherwise a bug in one check would keep the last state without end."""
    await monitor.round()
    postgres.failure = failure
    await monitor.round()
    assert told.readiness == [True, False]
    assert not monitor.states["postgres"].up
    assert type(failure).__name__ in monitor.states["postgres"].detail
    assert "SECRET" not in monitor.states["postgres"].detail
    assert redis.checks == 2


async def test_changed_is_told_after_every_round_also_when_nothing_changed(
    monitor: HealthMonitor, postgres: Dependency, told: Callback
) -> None:
    await monitor.round()
    await monitor.round()
    postgres.failure = DependencyDown("down")
    await monitor.round()
    assert told.readiness == [True, True, False]


async def test_it_checks_until_it_is_cancelled(monitor: HealthMonitor, told: Callback, postgres: Dependency) -> None:
    running = asyncio.create_task(monitor.run())
    async with asyncio.timeout(30):
        await told.three.wait()
    running.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await running
    assert running.cancelled()
    assert postgres.checks >= 3
