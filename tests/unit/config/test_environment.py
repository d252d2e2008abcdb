"""config.environment: where settings come from, and names that are no settings."""

import re
from pathlib import Path

import pytest

from pointsman_server.config.describe import effective
from pointsman_server.config.environment import as_environ, load, with_engines
from pointsman_server.config.names import variable
from pointsman_server.config.settings import Settings
from tests.support.settings import DATABASE_URL, problem

ROOT = Path(__file__).parents[3]


class TestSources:
    def test_an_empty_environment_gives_the_defaults(self) -> None:
        settings = load({})
        assert settings == Settings()
        assert settings.listen == "127.0.0.1:50051"
        assert settings.roles == {"api", "relay", "cache", "audit"}
        assert settings.redis_timeout_seconds == 0.05
        assert settings.data_dir == Path(".pointsman")

    def test_variables_are_read_by_their_names(self) -> None:
        settings = load({"DATABASE_URL": DATABASE_URL, "POINTSMAN_WORKERS": "4", "POINTSMAN_ACCESS_LOG_SAMPLE": "0.25"})
        assert settings.database_url.get_secret_value() == DATABASE_URL
        assert (settings.workers, settings.access_log_sample) == (4, 0.25)

    def test_without_an_argument_load_reads_the_environment_of_the_process(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setenv("POINTSMAN_MAX_STREAMS", "7")
        assert load().max_streams == 7

    def test_flags_win_over_the_environment(self) -> None:
        assert load({"POINTSMAN_WORKERS": "4"}, {"workers": 2}).workers == 2

    def test_a_flag_that_is_none_was_not_given(self) -> None:
        assert load({"POINTSMAN_WORKERS": "4"}, {"workers": None}).workers == 4

    @pytest.mark.parametrize("nothing", ["", "  "])
    def test_an_empty_variable_counts_as_not_set(self, nothing: str) -> None:
        assert load({"POINTSMAN_WORKERS": nothing, "DATABASE_URL": nothing}) == Settings()

    def test_a_child_process_gets_the_same_settings_from_the_environment(self) -> None:
        flags = {"workers": 3, "roles": "relay,api", "drain_seconds": 2.5, "data_dir": Path("/var/x")}
        parent = load({"DATABASE_URL": DATABASE_URL, "POINTSMAN_LISTEN": "[::1]:50051"}, flags)
        assert load(as_environ(parent)).model_dump() == parent.model_dump()

    def test_engines_that_the_process_started_are_shown_as_embedded(self) -> None:
        settings = with_engines(load({"REDIS_URL": "redis://h:1"}, {"workers": 2}), {"database_url": DATABASE_URL})
        sources = {row.variable: row.source for row in effective(settings)}
        assert sources["DATABASE_URL"] == "embedded"
        assert sources["REDIS_URL"] == "environment"
        assert sources["POINTSMAN_WORKERS"] == "flag"
        assert sources["POINTSMAN_LISTEN"] == "default"


class TestUnknownVariables:
    @pytest.mark.parametrize(
        ("name", "meant"),
        [
            ("POINTSMAN_WORKRES", "POINTSMAN_WORKERS"),
            ("POINTSMAN_DATABASE_URL", "DATABASE_URL"),
            ("POINTSMAN_POOL_MAX", "POINTSMAN_DATABASE_POOL_MAX"),
        ],
    )
    def test_a_name_that_is_no_setting_is_refused_with_the_nearest(self, name: str, meant: str) -> None:
        assert problem({name: "1"}) == f"{name} is not a setting: did you mean {meant}?"

    def test_a_name_unlike_any_is_refused_with_what_to_do(self) -> None:
        assert problem({"POINTSMAN_XYZZY": "1"}).startswith("POINTSMAN_XYZZY is not a setting: remove it;")

    def test_names_without_the_prefix_are_none_of_our_business(self) -> None:
        assert load({"PATH": "/bin", "WORKERS": "x"}) == Settings()

    @pytest.mark.parametrize("name", ["POINTSMAN_SERVER", "POINTSMAN_REQUIRE_ALL", "POINTSMAN_INTERNAL_ANYTHING"])
    def test_names_of_ours_that_are_no_settings_may_stand_there(self, name: str) -> None:
        assert load({name: "x"}) == Settings()

    def test_every_variable_of_the_client_may_stand_there(self) -> None:
        sources = [path.read_text() for path in (ROOT / "clients/python/pointsman").rglob("*.py")]
        names = set(re.findall(r"\bPOINTSMAN_[A-Z][A-Z_]*\b", "\n".join(sources)))
        # Its texts also name settings of the server.
        others = names - {variable(name) for name in Settings.model_fields}
        assert load(dict.fromkeys(others, "x")) == Settings()

    @pytest.mark.parametrize(
        ("name", "value"),
        [
            ("POINTSMAN_SERVICE_HOST", "10.0.0.1"),
            ("POINTSMAN_SERVICE_PORT", "50051"),
            ("POINTSMAN_SERVICE_PORT_GRPC", "50051"),
            ("POINTSMAN_PORT", "tcp://10.0.0.1:50051"),
            ("POINTSMAN_PORT_50051_TCP", "tcp://10.0.0.1:50051"),
            ("POINTSMAN_PORT_50051_TCP_ADDR", "10.0.0.1"),
            ("POINTSMAN_CANARY_SERVICE_HOST", "10.0.0.2"),
        ],
    )
    def test_what_kubernetes_sets_for_a_service_named_pointsman_may_stand_there(self, name: str, value: str) -> None:
        assert load({name: value}) == Settings()

    def test_a_port_that_somebody_meant_as_a_setting_is_refused(self) -> None:
        assert problem({"POINTSMAN_PORT": "50051"}).startswith("POINTSMAN_PORT is not a setting")
