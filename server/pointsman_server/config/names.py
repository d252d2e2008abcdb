"""The environment variable of each setting, and where a value comes from."""

from typing import Literal

PREFIX = "POINTSMAN_"
# The names that other tools use, too.
UNPREFIXED = frozenset({"database_url", "redis_url", "kafka_bootstrap_servers"})

SettingSource = Literal["default", "environment", "flag", "embedded"]


def variable(name: str) -> str:
    """Name the environment variable of the attribute ``name``."""
    return name.upper() if name in UNPREFIXED else PREFIX + name.upper()
