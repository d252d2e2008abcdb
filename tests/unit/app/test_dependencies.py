"""app.dependencies: which databases there are, and what a server can do without."""

from typing import Any

import pytest
from pydantic import SecretStr

from pointsman_server.app.dependencies import Dependencies, make_monitor
from pointsman_server.config.settings import Settings
from pointsman_server.config.types import ServerRole
from pointsman_server.ops.health_monitor import DependencyDown, MustNotServe
from pointsman_server.ports.store import Clock
from pointsman_server.telemetry.metrics import Metrics

ROUTES, AUDIT = "postgresql://routes.internal/pointsman", "postgresql://audit.internal/pointsman"


def dependencies(**chosen: Any) -> Dependencies:
    return Dependencies(Settings(database_url=SecretStr(ROUTES), **chosen), Metrics())


async def test_the_audit_log_is_in_the_database_of_the_routes() -> None:
    made = dependencies()
    assert made.audit_database is made.database


async def test_or_in_one_of_its_own() -> None:
    made = dependencies(audit_database_url=AUDIT)
    assert made.audit_database is not made.database
    assert (made.database.address, made.audit_database.address) == ("routes.internal:5432", "audit.internal:5432")


async def test_a_new_epoch_is_passed_on() -> None:
    heard: list[str] = []
    made = Dependencies(
        Settings(database_url=SecretStr(ROUTES)), Metrics(), on_new_epoch=lambda: heard.append("new epoch")
    )
    made.epochs.read(Clock("e1", 4), made.epochs.seen)
    assert heard == []
    made.epochs.read(Clock("e2", 4), made.epochs.seen)
    assert heard == ["new epoch"]


class FakeChecks:
    """PostgreSQL and Redis, which are down when ``down`` says how."""

    def __init__(self) -> None:
        self.down: dict[str, Exception] = {}

    def of_roles(self) -> dict[str, Any]:
        async def postgres() -> None:
            self._answer("postgres")

        async def redis() -> None:
            self._answer("redis")

        return {"postgres": postgres, "redis": redis}

    def _answer(self, name: str) -> None:
        if error := self.down.get(name):
            raise error


@pytest.mark.parametrize(
    ("down", "ready"),
    [
        ({}, True),
        ({"redis": DependencyDown("down")}, True),
        ({"postgres": DependencyDown("down")}, True),
        ({"postgres": DependencyDown("down"), "redis": DependencyDown("down")}, False),
        ({"postgres": MustNotServe("restored")}, False),
    ],
    ids=["all up", "redis down", "postgres down", "both down", "postgres restored"],
)
async def test_redis_stands_in_for_postgresql_that_is_down_but_not_for_a_restored_one(
    down: dict[str, Exception], ready: bool
) -> None:
    made, checks = dependencies(roles={ServerRole.API}), FakeChecks()
    made.checks = checks  # type: ignore[assignment]
    monitor = make_monitor(made)
    await monitor.round()
    checks.down = down
    await monitor.round()
    assert monitor.ready == ready
