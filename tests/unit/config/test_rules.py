"""config.rules: settings that must fit each other, and what a role or a command needs."""

import pytest

from pointsman_server.config.environment import load
from pointsman_server.config.rules import SettingsError, insecure, require, require_secure
from pointsman_server.config.settings import Settings
from tests.support.settings import DATABASE_URL, TLS, TOKENS, problem


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
            (
                {"POINTSMAN_ROLES": "xds", "POINTSMAN_XDS_LISTEN": "127.0.0.1:9464"},
                "POINTSMAN_XDS_LISTEN must differ from POINTSMAN_HTTP_LISTEN (127.0.0.1:9464)",
            ),
            (
                {"POINTSMAN_ROLES": "xds", "POINTSMAN_XDS_LISTEN": "127.0.0.1:50051"},
                "POINTSMAN_XDS_LISTEN must differ from POINTSMAN_LISTEN (127.0.0.1:50051)",
            ),
            (
                {"POINTSMAN_ROLES": "xds", "POINTSMAN_XDS_LISTEN": "127.0.0.1:0", "POINTSMAN_WORKERS": "2"},
                (
                    "POINTSMAN_XDS_LISTEN must name a port other than 0 when POINTSMAN_WORKERS is more than 1: "
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
                {"REDIS_URL": "rediss://h", "POINTSMAN_REDIS_CERT_FILE": "c"},
                "POINTSMAN_REDIS_CERT_FILE is set, and POINTSMAN_REDIS_KEY_FILE is not: set both",
            ),
            (
                {"REDIS_URL": "rediss://h", "POINTSMAN_REDIS_KEY_FILE": "k"},
                "POINTSMAN_REDIS_KEY_FILE is set, and POINTSMAN_REDIS_CERT_FILE is not: set both",
            ),
            (
                {"REDIS_URL": "redis+cluster://h", "POINTSMAN_REDIS_CA_FILE": "c"},
                "POINTSMAN_REDIS_CA_FILE needs TLS: REDIS_URL must begin with rediss",
            ),
            (
                {"REDIS_URL": "redis://h", "POINTSMAN_REDIS_SENTINEL_USER": "u"},
                (
                    "POINTSMAN_REDIS_SENTINEL_USER needs Sentinel: REDIS_URL must begin with redis+sentinel:// or "
                    "rediss+sentinel://"
                ),
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


class TestRequire:
    def test_every_engine_that_is_needed_is_named_with_what_to_do(self) -> None:
        with pytest.raises(SettingsError) as caught:
            require(Settings())
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
            ("xds", {"DATABASE_URL"}),
        ],
    )
    def test_a_role_needs_only_its_engines(self, roles: str, missing: set[str]) -> None:
        with pytest.raises(SettingsError) as caught:
            require(load({"POINTSMAN_ROLES": roles}))
        assert {line.split()[0] for line in caught.value.problems} == missing

    def test_a_command_without_roles_needs_the_database_alone(self) -> None:
        require(load({"DATABASE_URL": DATABASE_URL}), ())
        with pytest.raises(SettingsError, match="DATABASE_URL"):
            require(load({}), ())


class TestRequireSecure:
    """A server that others reach has TLS and authentication, or somebody said that it need not."""

    OPEN = "0.0.0.0:50051"

    @pytest.mark.parametrize("address", ["127.0.0.1:0", "127.1.2.3:1", "[::1]:1", "localhost:1", "LOCALHOST:1"])
    def test_on_loopback_nothing_is_asked(self, address: str) -> None:
        settings = load({"POINTSMAN_LISTEN": address})
        require_secure(settings)
        assert insecure(settings) == {"anonymous": False, "plaintext": False}

    @pytest.mark.parametrize(
        "address", [OPEN, "[::]:1", "10.0.0.1:1", "server.internal:1", "localhost.evil.test:1", "127.0.0.1.nip.test:1"]
    )
    def test_anywhere_else_both_are_asked_for_and_the_remedies_named(self, address: str) -> None:
        settings = load({"POINTSMAN_LISTEN": address})
        with pytest.raises(SettingsError) as caught:
            require_secure(settings)
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
            require_secure(settings)
            problems: tuple[str, ...] = ()
        except SettingsError as error:
            problems = error.problems
        assert [what for what in ("anonymous", "plaintext") if any(f"--allow-{what}" in line for line in problems)] == (
            lacking
        )

    def test_the_port_of_xds_is_held_to_the_same(self) -> None:
        there = {"POINTSMAN_XDS_LISTEN": "0.0.0.0:50052"}
        require_secure(load(there))
        settings = load(there | {"POINTSMAN_ROLES": "api,xds"})
        with pytest.raises(SettingsError) as caught:
            require_secure(settings)
        assert all(line.startswith("POINTSMAN_XDS_LISTEN (0.0.0.0:50052) is beyond") for line in caught.value.problems)
        assert insecure(settings) == {"anonymous": True, "plaintext": True}

    def test_what_is_allowed_is_insecure_all_the_same(self) -> None:
        settings = load({"POINTSMAN_LISTEN": self.OPEN, "POINTSMAN_ALLOW_ANONYMOUS": "true"} | TLS)
        assert insecure(settings) == {"anonymous": True, "plaintext": False}
