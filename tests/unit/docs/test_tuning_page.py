"""docs/tuning.md has a word on every setting and every metric, and on none that is not there."""

import re
from pathlib import Path

from pointsman_server.adapters.postgres.migrations import AUDIT, STORE, head
from pointsman_server.config.describe import describe

DOCS = Path(__file__).resolve().parents[3] / "docs"
TUNING = (DOCS / "tuning.md").read_text()


def test_every_setting_is_there_and_no_other() -> None:
    settings = {row.variable for row in describe()}
    named = set(
        re.findall(r"`((?:POINTSMAN_[A-Z0-9_]*[A-Z0-9])|DATABASE_URL|REDIS_URL|KAFKA_BOOTSTRAP_SERVERS)`", TUNING)
    )

    assert settings - named == set()
    assert named - settings == set()


def test_every_metric_is_there_and_no_other() -> None:
    metrics = set(re.findall(r"^\| `(\w+)` \|", (DOCS / "reference" / "metrics.md").read_text(), re.MULTILINE))
    named = set(re.findall(r"`((?:grpc_server|pointsman|process)_[a-z0-9_]+)`", TUNING))

    assert metrics - named == set()
    assert named - metrics == set()


def test_the_upgrade_table_reaches_the_newest_schema() -> None:
    page = (DOCS / "upgrading.md").read_text()
    assert head(STORE) in page
    assert head(AUDIT) in page
