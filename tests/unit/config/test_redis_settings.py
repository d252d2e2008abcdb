"""config.redis_settings: what the environment may say of Redis beside its URL."""

from pathlib import Path

import pytest

from pointsman_server.config.describe import effective
from pointsman_server.config.environment import as_environ, load
from pointsman_server.config.rules import SettingsError

SECURED = {
    "REDIS_URL": "rediss+sentinel://h/main",
    "POINTSMAN_REDIS_CA_FILE": "/ca.pem",
    "POINTSMAN_REDIS_SENTINEL_USER": "s",
    "POINTSMAN_REDIS_SENTINEL_PASSWORD": "canary",
}


def test_the_password_of_the_sentinels_is_not_shown_and_reaches_workers() -> None:
    settings = load(SECURED)
    assert settings.redis_ca_file == Path("/ca.pem")
    shown = {row.variable: row.value for row in effective(settings)}
    assert shown["POINTSMAN_REDIS_SENTINEL_PASSWORD"] == "***"
    assert "canary" not in f"{settings} {settings!r} {effective(settings)}"
    assert load(as_environ(settings)).redis_sentinel_password.get_secret_value() == "canary"


@pytest.mark.parametrize("prefix", ["a{b}", "x" * 65])
def test_a_prefix_has_no_hash_tag(prefix: str) -> None:
    with pytest.raises(SettingsError, match="POINTSMAN_REDIS_PREFIX must be 1 to 64 of"):
        load({"POINTSMAN_REDIS_PREFIX": prefix})
