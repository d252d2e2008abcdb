"""The settings: where they come from, what is refused and in which words, and what is shown of them."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from pydantic import SecretStr, ValidationError

from pointsman_server.config.settings import (
    ServerRole,
    Settings,
    SettingsError,
    describe,
    host_and_port,
    load,
    markdown,
    mask_credentials,
)

ROOT = Path(__file__).parents[3]
TLS = {"POINTSMAN_TLS_CERT_FILE": "c", "POINTSMAN_TLS_KEY_FILE": "k"}
TOKENS = {"POINTSMAN_JWT_ISSUER": "i", "POINTSMAN_JWT_AUDIENCE": "a", "POINTSMAN_JWT_JWKS_FILE": "f"}
DATABASE_URL = "postgresql://pointsman:canary@db.internal:5432/routes"


def problems(environ: dict[str, str], **flags: object) -> tuple[str, ...]:
    with pytest.raises(SettingsError) as caught:
        load(environ, flags)
    return caught.value.problems


def problem(environ: dict[str, str], **flags: object) -> str:
    (line,) = problems(environ, **flags)
    return line


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

    def test_the_model_by_itself_never_reads_the_environment(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setenv("POINTSMAN_MAX_STREAMS", "7")
        assert Settings().max_streams == 1000

    def test_flags_win_over_the_environment(self) -> None:
        assert load({"POINTSMAN_WORKERS": "4"}, {"workers": 2}).workers == 2

    def test_a_flag_that_is_none_was_not_given(self) -> None:
        assert load({"POINTSMAN_WORKERS": "4"}, {"workers": None}).workers == 4

    @pytest.mark.parametrize("nothing", ["", "  "])
    def test_an_empty_variable_counts_as_not_set(self, nothing: str) -> None:
        assert load({"POINTSMAN_WORKERS": nothing, "DATABASE_URL": nothing}) == Settings()

    def test_settings_cannot_be_changed(self) -> None:
        with pytest.raises(ValidationError):
            Settings().workers = 2

    def test_a_child_process_gets_the_same_settings_from_the_environment(self) -> None:
        flags = {"workers": 3, "roles": "relay,api", "drain_seconds": 2.5, "data_dir": Path("/var/x")}
        parent = load({"DATABASE_URL": DATABASE_URL, "POINTSMAN_LISTEN": "[::1]:50051"}, flags)
        assert load(parent.as_environ()).model_dump() == parent.model_dump()


class TestValues:
    def test_roles_are_a_comma_separated_set(self) -> None:
        assert load({"POINTSMAN_ROLES": " relay, API,relay "}).roles == {ServerRole.API, ServerRole.RELAY}

    def test_an_unknown_role_is_refused_with_the_nearest(self) -> None:
        assert problem({"POINTSMAN_ROLES": "api,rellay"}) == (
            "POINTSMAN_ROLES has an unknown role 'rellay': did you mean relay?"
        )

    def test_a_role_unlike_any_is_refused_with_all(self) -> None:
        assert problem({"POINTSMAN_ROLES": "xyz"}) == (
            "POINTSMAN_ROLES has an unknown role 'xyz': the roles are api, relay, cache, audit"
        )

    @pytest.mark.parametrize(("text", "value"), [("true", True), ("FALSE", False), ("1", True), ("0", False)])
    def test_a_switch_is_true_or_false(self, text: str, value: bool) -> None:
        settings = load({"POINTSMAN_RATE_SHARED_WRITES": text, "POINTSMAN_RATE_TENANT_WRITES": "2.5"})
        assert (settings.rate_shared_writes, settings.rate_tenant_writes) == (value, 2.5)
        assert load(settings.as_environ()) == settings

    def test_anything_else_is_no_switch(self) -> None:
        assert problem({"POINTSMAN_RATE_SHARED_WRITES": "maybe"}) == (
            "POINTSMAN_RATE_SHARED_WRITES must be true or false, not 'maybe'"
        )

    def test_no_role_at_all_is_refused(self) -> None:
        assert problem({"POINTSMAN_ROLES": ","}) == "POINTSMAN_ROLES must name at least one of api, relay, cache, audit"

    @pytest.mark.parametrize(
        "address", ["0.0.0.0:50051", "[::1]:50051", "[::]:0", "pod-1.internal:1", "localhost:65535"]
    )
    def test_an_address_is_host_and_port(self, address: str) -> None:
        assert load({"POINTSMAN_LISTEN": address}).listen == address

    @pytest.mark.parametrize(
        "address",
        [":50051", "50051", "localhost", "::1:50051", "[x]:1", "localhost:65536", "http://a:1", "a:٣", "a b:1"],
    )
    def test_anything_else_is_no_address(self, address: str) -> None:
        line = problem({"POINTSMAN_LISTEN": address})
        assert line.startswith("POINTSMAN_LISTEN must ")
        assert repr(address) in line

    def test_an_address_splits_into_host_and_port(self) -> None:
        assert host_and_port("[::1]:50051") == ("::1", 50051)
        assert host_and_port("localhost:0") == ("localhost", 0)

    def test_bootstrap_servers_are_addresses_with_real_ports(self) -> None:
        assert load({"KAFKA_BOOTSTRAP_SERVERS": "a:9092, b:9092"}).kafka_bootstrap_servers == "a:9092,b:9092"
        assert "must name a port other than 0" in problem({"KAFKA_BOOTSTRAP_SERVERS": "a:9092,b:0"})
        assert "must be host:port" in problem({"KAFKA_BOOTSTRAP_SERVERS": "a:9092,,b:9092"})

    @pytest.mark.parametrize("level", ["info", "INFO", " Info "])
    def test_choices_are_read_in_any_case(self, level: str) -> None:
        assert load({"POINTSMAN_LOG_LEVEL": level}).log_level == "info"

    def test_a_wrong_choice_is_refused_with_the_choices_and_the_nearest(self) -> None:
        assert problem({"POINTSMAN_TRANSPORT": "nativ"}) == (
            "POINTSMAN_TRANSPORT must be auto or grpcio or native, not 'nativ': did you mean native?"
        )

    @pytest.mark.parametrize(
        ("name", "value", "rule"),
        [
            ("POINTSMAN_WORKERS", "0", "must be a whole number, 1 to 64, not '0'"),
            ("POINTSMAN_WORKERS", "two", "must be a whole number, 1 to 64, not 'two'"),
            ("POINTSMAN_ACCESS_LOG_SAMPLE", "1.5", "must be a number, 0 to 1, not '1.5'"),
            ("POINTSMAN_DRAIN_SECONDS", "nan", "must be a number, 0 to 600, not 'nan'"),
            ("POINTSMAN_DEADLINE_SECONDS", "0", "must be a number above 0, at most 3600, not '0'"),
            ("POINTSMAN_KAFKA_TOPIC", "a/b", "must be 1 to 249 of A-Z a-z 0-9 . _ -, not 'a/b'"),
            ("POINTSMAN_REDIS_PREFIX", "{x}", "must be 1 to 64 of A-Z a-z 0-9 . _ - :, not '{x}'"),
        ],
    )
    def test_a_value_out_of_bounds_is_refused_with_the_bounds(self, name: str, value: str, rule: str) -> None:
        assert problem({name: value}) == f"{name} {rule}"

    def test_a_wrong_flag_is_called_a_flag(self) -> None:
        assert problem({}, max_streams="x").startswith("POINTSMAN_MAX_STREAMS (given as a flag) must be ")

    def test_a_flag_that_does_not_exist_is_refused(self) -> None:
        assert problem({}, wrokers=1) == "wrokers (given as a flag) is not a setting"

    def test_all_problems_are_told_at_once(self) -> None:
        lines = problems({"POINTSMAN_WORKERS": "0", "POINTSMAN_ROLES": "x", "POINTSMAN_WORKRES": "2"})
        assert len(lines) == 3


class TestSecrets:
    @pytest.mark.parametrize(
        "url",
        [
            "postgresql://u:p@h:5432/d",
            "postgres://u@h/d?sslmode=require",
            "postgresql://u:p%40%23@h1:5432,h2:5432/d",
            "postgresql:///d?host=/run/postgresql",
            "postgresql://u:p@[::1]:5432/d",
        ],
    )
    def test_what_postgresql_understands_is_accepted(self, url: str) -> None:
        assert load({"DATABASE_URL": url}).database_url == SecretStr(url)

    @pytest.mark.parametrize("url", ["redis://h:6379/0", "rediss://:p@h:6380", "unix:///run/redis.sock"])
    def test_what_redis_understands_is_accepted(self, url: str) -> None:
        assert load({"REDIS_URL": url}).redis_url == SecretStr(url)

    @pytest.mark.parametrize(
        "url",
        [
            "mysql://u:canary@h/d",
            "u:canary@h/d",
            "postgresql://u:canary#x@h/d",
            "postgresql://u:canary/x@h/d",
            "postgresql://u:canary?x@h/d",
            "postgresql://u:canary@[h/d",
        ],
    )
    def test_a_wrong_url_is_refused_without_being_quoted(self, url: str) -> None:
        with pytest.raises(SettingsError) as caught:
            load({"DATABASE_URL": url})
        assert str(caught.value).startswith("DATABASE_URL must be ")
        assert "canary" not in str(caught.value)
        assert caught.value.__context__ is None

    def test_no_other_problem_quotes_a_secret(self) -> None:
        lines = problems({"DATABASE_URL": DATABASE_URL, "POINTSMAN_DATABASE_POOL_MIN": "99", "POINTSMAN_X": "1"})
        assert "canary" not in "".join(lines)

    def test_neither_the_settings_nor_what_is_shown_of_them_hold_the_password(self) -> None:
        settings = load({"DATABASE_URL": DATABASE_URL, "REDIS_URL": "redis://:canary@cache:6379/0"})
        assert "canary" not in f"{settings} {settings!r} {settings.effective()}"

    @pytest.mark.parametrize(
        ("text", "masked"),
        [
            (DATABASE_URL, "postgresql://pointsman:***@db.internal:5432/routes"),
            ("redis://:canary@h:1/0", "redis://:***@h:1/0"),
            ("could not reach rediss://u:can@ary@h, giving up", "could not reach rediss://u:***@h, giving up"),
            ("postgresql://h/d?user=u&password=canary&sslmode=off", "postgresql://h/d?user=u&password=***&sslmode=off"),
            ("https://h:8443/a@b", "https://h:8443/a@b"),
            ("me@example.com", "me@example.com"),
        ],
    )
    def test_masking_hides_the_password_and_keeps_the_host(self, text: str, masked: str) -> None:
        assert mask_credentials(text) == masked


class TestContradictions:
    @pytest.mark.parametrize(
        ("environ", "line"),
        [
            (
                {"POINTSMAN_DATABASE_POOL_MIN": "11"},
                "POINTSMAN_DATABASE_POOL_MAX (10) must be at least POINTSMAN_DATABASE_POOL_MIN (11)",
            ),
            (
                {"POINTSMAN_STORE_LOAD_CONCURRENCY": "10"},
                (
                    "POINTSMAN_STORE_LOAD_CONCURRENCY (10) must be less than POINTSMAN_DATABASE_POOL_MAX (10): "
                    "writes must always find a connection"
                ),
            ),
            (
                {"POINTSMAN_RATE_SHARED_WRITES": "true", "POINTSMAN_RATE_TENANT_READS": "5"},
                (
                    "POINTSMAN_RATE_SHARED_WRITES needs a rate to share: set POINTSMAN_RATE_IDENTITY_WRITES or "
                    "POINTSMAN_RATE_TENANT_WRITES"
                ),
            ),
            (
                {"POINTSMAN_TRANSPORT": "native", "POINTSMAN_CONNECTION_AGE_SECONDS": "5"},
                (
                    "POINTSMAN_CONNECTION_IDLE_SECONDS and POINTSMAN_CONNECTION_AGE_SECONDS need POINTSMAN_TRANSPORT "
                    "grpcio or auto: the native one never closes a connection by age"
                ),
            ),
            (
                {"POINTSMAN_CACHE_NEGATIVE_TTL_SECONDS": "301"},
                "POINTSMAN_CACHE_NEGATIVE_TTL_SECONDS (301) must be at most POINTSMAN_CACHE_TTL_SECONDS (300)",
            ),
            (
                {"POINTSMAN_CACHE_LOCAL_TTL_SECONDS": "300.5"},
                "POINTSMAN_CACHE_LOCAL_TTL_SECONDS (300.5) must be at most POINTSMAN_CACHE_TTL_SECONDS (300)",
            ),
            (
                {"POINTSMAN_HTTP_LISTEN": "127.0.0.1:50051"},
                "POINTSMAN_HTTP_LISTEN must differ from POINTSMAN_LISTEN (127.0.0.1:50051)",
            ),
            ({"POINTSMAN_PIN_WORKERS": "true"}, "POINTSMAN_PIN_WORKERS needs POINTSMAN_WORKERS to be 2 or more"),
            (
                {"POINTSMAN_LISTEN": "127.0.0.1:0", "POINTSMAN_WORKERS": "2"},
                (
                    "POINTSMAN_LISTEN must name a port other than 0 when POINTSMAN_WORKERS is more than 1: "
                    "workers share it"
                ),
            ),
        ],
    )
    def test_settings_must_fit_each_other(self, environ: dict[str, str], line: str) -> None:
        assert problem(environ) == line

    @pytest.mark.parametrize(
        ("environ", "line"),
        [
            (
                {"POINTSMAN_TLS_CERT_FILE": "c"},
                "POINTSMAN_TLS_CERT_FILE is set, and POINTSMAN_TLS_KEY_FILE is not: set both",
            ),
            (
                {"POINTSMAN_TLS_KEY_FILE": "k"},
                "POINTSMAN_TLS_KEY_FILE is set, and POINTSMAN_TLS_CERT_FILE is not: set both",
            ),
            (
                TLS | {"POINTSMAN_TRANSPORT": "native"},
                "POINTSMAN_TRANSPORT native has no TLS (POINTSMAN_TLS_CERT_FILE is set): use grpcio or auto",
            ),
            (
                TOKENS | {"POINTSMAN_JWT_AUDIENCE": ""},
                "POINTSMAN_JWT_ISSUER is set, and POINTSMAN_JWT_AUDIENCE is not: set both",
            ),
            (
                TOKENS | {"POINTSMAN_JWT_JWKS_FILE": ""},
                (
                    "POINTSMAN_JWT_ISSUER needs the keys of the issuer: set POINTSMAN_JWT_JWKS_URL or "
                    "POINTSMAN_JWT_JWKS_FILE"
                ),
            ),
            (
                TOKENS | {"POINTSMAN_JWT_JWKS_URL": "https://issuer.test/keys"},
                "POINTSMAN_JWT_JWKS_URL and POINTSMAN_JWT_JWKS_FILE exclude each other",
            ),
            (
                TOKENS | {"POINTSMAN_JWT_JWKS_FILE": "", "POINTSMAN_JWT_JWKS_URL": "http://issuer.test/keys"},
                (
                    "POINTSMAN_JWT_JWKS_URL must be https:// beyond loopback: who changes the keys on their way signs "
                    "tokens (POINTSMAN_ALLOW_PLAINTEXT=true takes it all the same, as behind a mesh)"
                ),
            ),
        ],
    )
    def test_settings_of_access_must_fit_each_other(self, environ: dict[str, str], line: str) -> None:
        assert problem(environ) == line

    @pytest.mark.parametrize(
        "environ",
        [
            {"POINTSMAN_JWT_JWKS_URL": "https://issuer.test/keys"},
            {"POINTSMAN_JWT_JWKS_URL": "http://127.0.0.1:8080/keys"},
            {"POINTSMAN_JWT_JWKS_URL": "http://issuer.test/keys", "POINTSMAN_ALLOW_PLAINTEXT": "true"},
        ],
    )
    def test_keys_come_by_tls_or_from_this_machine_or_as_allowed(self, environ: dict[str, str]) -> None:
        assert load(TOKENS | {"POINTSMAN_JWT_JWKS_FILE": ""} | environ).authenticates

    def test_two_free_ports_are_two_ports(self) -> None:
        free = "127.0.0.1:0"
        assert load({"POINTSMAN_LISTEN": free, "POINTSMAN_HTTP_LISTEN": free}).http_listen == free


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
        assert load(dict.fromkeys(names, "x")) == Settings()

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


class TestRequire:
    def test_every_engine_that_is_needed_is_named_with_what_to_do(self) -> None:
        with pytest.raises(SettingsError) as caught:
            Settings().require()
        database, redis, kafka = caught.value.problems
        assert database.startswith("DATABASE_URL is not set, and PostgreSQL is always needed: set it to postgresql://")
        assert redis.startswith("REDIS_URL is not set, and the roles api and cache need Redis: set it to redis://")
        assert kafka.startswith("KAFKA_BOOTSTRAP_SERVERS is not set, and the roles relay, cache and audit need Kafka")
        assert all("`pointsman-server dev`" in line for line in caught.value.problems)

    @pytest.mark.parametrize(
        ("roles", "missing"),
        [
            ("api", {"DATABASE_URL", "REDIS_URL"}),
            ("relay", {"DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"}),
            ("audit", {"DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS"}),
            ("cache", {"DATABASE_URL", "REDIS_URL", "KAFKA_BOOTSTRAP_SERVERS"}),
        ],
    )
    def test_a_role_needs_only_its_engines(self, roles: str, missing: set[str]) -> None:
        with pytest.raises(SettingsError) as caught:
            load({"POINTSMAN_ROLES": roles}).require()
        assert {line.split()[0] for line in caught.value.problems} == missing

    def test_a_command_without_roles_needs_the_database_alone(self) -> None:
        load({"DATABASE_URL": DATABASE_URL}).require(())


class TestRequireSecure:
    """A server that others reach has TLS and authentication, or somebody said that it need not."""

    OPEN = "0.0.0.0:50051"

    @pytest.mark.parametrize("address", ["127.0.0.1:0", "127.1.2.3:1", "[::1]:1", "localhost:1", "LOCALHOST:1"])
    def test_on_loopback_nothing_is_asked(self, address: str) -> None:
        settings = load({"POINTSMAN_LISTEN": address})
        settings.require_secure()
        assert settings.insecure == {"anonymous": False, "plaintext": False}

    @pytest.mark.parametrize(
        "address", [OPEN, "[::]:1", "10.0.0.1:1", "server.internal:1", "localhost.evil.test:1", "127.0.0.1.nip.test:1"]
    )
    def test_anywhere_else_both_are_asked_for_and_the_remedies_named(self, address: str) -> None:
        settings = load({"POINTSMAN_LISTEN": address})
        with pytest.raises(SettingsError) as caught:
            settings.require_secure()
        anonymous, plaintext = caught.value.problems
        assert all(address in line and "POINTSMAN_LISTEN" in line for line in (anonymous, plaintext))
        assert "POINTSMAN_ALLOW_ANONYMOUS=true or `serve --allow-anonymous`" in anonymous
        assert "POINTSMAN_JWT_ISSUER" in anonymous
        assert "POINTSMAN_ALLOW_PLAINTEXT=true or `serve --allow-plaintext`" in plaintext
        assert "POINTSMAN_TLS_CERT_FILE" in plaintext

    @pytest.mark.parametrize(
        ("environ", "lacking"),
        [
            (TLS, ["anonymous"]),
            (TOKENS, ["plaintext"]),
            ({"POINTSMAN_API_KEYS": "true"}, ["plaintext"]),
            (TLS | TOKENS, []),
            (TLS | {"POINTSMAN_TLS_CLIENT_CA_FILE": "a"}, []),
            ({"POINTSMAN_ALLOW_ANONYMOUS": "true"}, ["plaintext"]),
            ({"POINTSMAN_ALLOW_PLAINTEXT": "true"}, ["anonymous"]),
            ({"POINTSMAN_ALLOW_PLAINTEXT": "true", "POINTSMAN_ALLOW_ANONYMOUS": "true"}, []),
            ({"POINTSMAN_ROLES": "relay"}, []),
        ],
    )
    def test_each_is_there_or_allowed_to_be_lacking(self, environ: dict[str, str], lacking: list[str]) -> None:
        settings = load({"POINTSMAN_LISTEN": self.OPEN} | environ)
        try:
            settings.require_secure()
            problems: tuple[str, ...] = ()
        except SettingsError as error:
            problems = error.problems
        assert [what for what in ("anonymous", "plaintext") if any(f"--allow-{what}" in line for line in problems)] == (
            lacking
        )

    def test_what_is_allowed_is_insecure_all_the_same(self) -> None:
        settings = load({"POINTSMAN_LISTEN": self.OPEN, "POINTSMAN_ALLOW_ANONYMOUS": "true"} | TLS)
        assert settings.insecure == {"anonymous": True, "plaintext": False}


class TestWhatIsShown:
    def test_each_value_is_shown_with_its_source(self) -> None:
        settings = load({"DATABASE_URL": DATABASE_URL, "POINTSMAN_ROLES": "relay"}, {"workers": 2})
        shown = {row.variable: (row.value, row.source) for row in settings.effective()}
        assert shown["DATABASE_URL"] == ("postgresql://pointsman:***@db.internal:5432/routes", "environment")
        assert shown["POINTSMAN_ROLES"] == ("relay", "environment")
        assert shown["POINTSMAN_WORKERS"] == ("2", "flag")
        assert shown["POINTSMAN_DRAIN_SECONDS"] == ("10", "default")

    def test_engines_that_the_process_started_are_shown_as_embedded(self) -> None:
        settings = load({"REDIS_URL": "redis://h:1"}, {"workers": 2}).with_engines({"database_url": DATABASE_URL})
        sources = {row.variable: row.source for row in settings.effective()}
        assert sources["DATABASE_URL"] == "embedded"
        assert sources["REDIS_URL"] == "environment"
        assert sources["POINTSMAN_WORKERS"] == "flag"
        assert sources["POINTSMAN_LISTEN"] == "default"

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
        command = [sys.executable, "-m", "pointsman_server.config.settings"]
        printed = subprocess.run(command, capture_output=True, text=True, check=True, cwd=ROOT, env=dict(os.environ))
        assert printed.stdout == markdown()
