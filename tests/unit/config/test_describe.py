"""config.describe: what is shown of the settings, and never a secret."""

import os
import subprocess
import sys
from pathlib import Path

from pointsman_server.config.describe import describe, effective, markdown
from pointsman_server.config.environment import load
from pointsman_server.config.settings import Settings
from tests.support.settings import DATABASE_URL

ROOT = Path(__file__).parents[3]


class TestWhatIsShown:
    def test_each_value_is_shown_with_its_source(self) -> None:
        settings = load({"DATABASE_URL": DATABASE_URL, "POINTSMAN_ROLES": "relay"}, {"workers": 2})
        shown = {row.variable: (row.value, row.source) for row in effective(settings)}
        assert shown["DATABASE_URL"] == ("postgresql://pointsman:***@db.internal:5432/routes", "environment")
        assert shown["POINTSMAN_ROLES"] == ("relay", "environment")
        assert shown["POINTSMAN_WORKERS"] == ("2", "flag")
        assert shown["POINTSMAN_DRAIN_SECONDS"] == ("10", "default")

    def test_every_setting_is_described(self) -> None:
        rows = describe()
        assert [row.variable for row in rows[:4]] == [
            "DATABASE_URL",
            "REDIS_URL",
            "KAFKA_BOOTSTRAP_SERVERS",
            "POINTSMAN_LISTEN",
        ]
        assert all(row.allowed and row.description.endswith(".") for row in rows)

    def test_every_default_that_is_described_is_one_that_load_accepts(self) -> None:
        described = {row.variable: row.default for row in describe()}
        assert load(described).model_dump() == Settings().model_dump()

    def test_the_table_has_one_line_of_four_cells_per_setting(self) -> None:
        lines = markdown().splitlines()
        assert len(lines) == 2 + len(Settings.model_fields)
        assert {line.count("|") for line in lines} == {5}

    def test_the_module_prints_the_table(self) -> None:
        command = [sys.executable, "-m", "pointsman_server.config.describe"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=dict(os.environ))
        assert printed.stdout == markdown()

    def test_neither_the_settings_nor_what_is_shown_of_them_hold_the_password(self) -> None:
        settings = load({"DATABASE_URL": DATABASE_URL, "REDIS_URL": "redis://:canary@cache:6379/0"})
        assert "canary" not in f"{settings} {settings!r} {effective(settings)}"
