"""The environment variable of each setting, and where a value comes from."""

from typing import Literal

PREFIX = "POINTSMAN_"
# The names that other tools use, too.
UNPREFIXED = frozenset({"database_url", "redis_url", "kafka_bootstrap_servers"})

# Set by a process that starts a server: the number of the pipe on which it waits for the ports, as JSON.
READY_DESCRIPTOR = "POINTSMAN_INTERNAL_READY_DESCRIPTOR"

SettingSource = Literal["default", "environment", "flag", "embedded"]


def variable(name: str) -> str:
    """Name the environment variable of the attribute ``name``."""
    return name.upper() if name in UNPREFIXED else PREFIX + name.upper()
