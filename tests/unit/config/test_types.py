"""config.types: the values that settings take, those that are refused, and in which words."""

import pytest
from pydantic import SecretStr

from pointsman_server.config.environment import as_environ, load
from pointsman_server.config.rules import SettingsError
from pointsman_server.config.types import ServerRole, host_and_port, is_loopback, mask_credentials
from tests.support.settings import DATABASE_URL, problem, problems


class TestValues:
    def test_roles_are_a_comma_separated_set(self) -> None:
        assert load({"POINTSMAN_ROLES": " relay, API,relay "}).roles == {ServerRole.API, ServerRole.RELAY}

    def test_an_unknown_role_is_refused_with_the_nearest(self) -> None:
        assert problem({"POINTSMAN_ROLES": "api,rellay"}) == (
            "POINTSMAN_ROLES has an unknown role 'rellay': did you mean relay?"
        )

    def test_a_role_unlike_any_is_refused_with_all(self) -> None:
        assert problem({"POINTSMAN_ROLES": "xyz"}) == (
            "POINTSMAN_ROLES has an unknown role 'xyz': the roles are api, relay, cache, audit, xds"
        )

    @pytest.mark.parametrize(("text", "value"), [("true", True), ("FALSE", False), ("1", True), ("0", False)])
    def test_a_switch_is_true_or_false(self, text: str, value: bool) -> None:
        settings = load({"POINTSMAN_RATE_SHARED_WRITES": text, "POINTSMAN_RATE_TENANT_WRITES": "2.5"})
        assert (settings.rate_shared_writes, settings.rate_tenant_writes) == (value, 2.5)
        assert load(as_environ(settings)) == settings

    def test_anything_else_is_no_switch(self) -> None:
        assert problem({"POINTSMAN_RATE_SHARED_WRITES": "maybe"}) == (
            "POINTSMAN_RATE_SHARED_WRITES must be true or false, not 'maybe'"
        )

    def test_origins_are_a_comma_separated_list(self) -> None:
        settings = load({"POINTSMAN_CORS_ORIGINS": "https://a.example, http://b.example:8080"})
        assert settings.cors_origins == ("https://a.example", "http://b.example:8080")
        assert load(as_environ(settings)) == settings

    @pytest.mark.parametrize("origin", ["a.example", "https://a.example/path", "https://*.example", "null"])
    def test_what_is_no_origin_is_refused(self, origin: str) -> None:
        assert problem({"POINTSMAN_CORS_ORIGINS": origin}) == (
            f"POINTSMAN_CORS_ORIGINS must be origins such as https://app.example.com, or *, not {origin!r}"
        )

    def test_no_role_at_all_is_refused(self) -> None:
        assert (
            problem({"POINTSMAN_ROLES": ","})
            == "POINTSMAN_ROLES must name at least one of api, relay, cache, audit, xds"
        )

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
        assert problem({"POINTSMAN_TRANSPORT": "envoi"}) == (
            "POINTSMAN_TRANSPORT must be auto or grpcio or envoy, not 'envoi': did you mean envoy?"
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
            "postgresql://u:p@h1,[::1]:5432/d",
        ],
    )
    def test_what_postgresql_understands_is_accepted(self, url: str) -> None:
        assert load({"DATABASE_URL": url}).database_url == SecretStr(url)

    def test_replicas_are_separated_by_spaces(self) -> None:
        urls = " postgresql://u:p@a,b:5433/d   postgres://c/d "
        settings = load({"POINTSMAN_DATABASE_REPLICA_URLS": urls})
        assert settings.database_replica_urls == SecretStr("postgresql://u:p@a,b:5433/d postgres://c/d")
        assert load({"POINTSMAN_DATABASE_REPLICA_URLS": " "}).database_replica_urls == SecretStr("")

    def test_a_wrong_url_of_a_replica_is_refused_without_being_quoted(self) -> None:
        (line,) = problems({"POINTSMAN_DATABASE_REPLICA_URLS": "postgresql://a/d mysql://u:canary@h/d"})
        assert line.startswith("POINTSMAN_DATABASE_REPLICA_URLS must be a URL that starts with postgresql://")
        assert "canary" not in line

    @pytest.mark.parametrize(
        "url",
        [
            "redis://h:6379/0",
            "rediss://:p@h:6380",
            "unix:///run/redis.sock",
            "redis+cluster://u:p@a:7000,b:7001",
            "redis+cluster://a,[::1]:7001",
            "rediss+cluster://a/0",
            "redis+sentinel://a,b:26380/main",
            "rediss+sentinel://u:p@a/main/3?ssl_cert_reqs=none",
        ],
    )
    def test_what_redis_understands_is_accepted(self, url: str) -> None:
        assert load({"REDIS_URL": url}).redis_url == SecretStr(url)

    @pytest.mark.parametrize(
        ("url", "words"),
        [
            ("redis+sentinel://u:canary@a,b", "must be redis+sentinel://host:26379,host:26379/name"),
            ("redis+sentinel://u:canary@a/main/first", "must end in the number of a database"),
            ("redis://u:canary@h/first", "must end in the number of a database"),
            ("redis+cluster://u:canary@h/1", "must not name a database"),
            ("redis://u:canary@a,b", "must name one host: several are redis+cluster:// or redis+sentinel://"),
            ("redis+clutser://u:canary@h", "must be a URL that starts with redis:// or rediss://"),
        ],
    )
    def test_a_wrong_url_of_redis_is_refused_without_being_quoted(self, url: str, words: str) -> None:
        (line,) = problems({"REDIS_URL": url})
        assert line.startswith(f"REDIS_URL {words}")
        assert "canary" not in line

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


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "localhost"])
def test_loopback(host):
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "pod-1.internal"])
def test_everything_else_is_not(host):
    assert not is_loopback(host)
