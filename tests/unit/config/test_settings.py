"""config.settings: the model by itself."""

import pytest
from pydantic import SecretStr, ValidationError

from pointsman_server.config.describe import describe
from pointsman_server.config.environment import load
from pointsman_server.config.rules import require
from pointsman_server.config.settings import Settings
from tests.support.settings import DATABASE_URL


def test_the_model_by_itself_never_reads_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("POINTSMAN_MAX_STREAMS", "7")
    assert Settings().max_streams == 1000


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(ValidationError):
        Settings().workers = 2


@pytest.mark.parametrize("url", ["redis://cache:6379/3", "rediss://:secret@cache:6380"])
def test_the_cache_is_the_redis_that_is_set(url: str) -> None:
    assert load({"REDIS_URL": url}).cache_url == url


def test_the_cache_of_a_process_that_needs_none_is_on_this_machine_as_the_description_says() -> None:
    settings = load({"POINTSMAN_ROLES": "relay"})
    require(settings.model_copy(update={"database_url": SecretStr(DATABASE_URL), "kafka_bootstrap_servers": "k:1"}))
    described = {row.variable: row.description for row in describe()}

    assert settings.cache_url == "redis://127.0.0.1:6379/0"
    assert f"`{settings.cache_url}`" in described["REDIS_URL"]
