"""``pointsman-server`` and its commands: what they say, and how they end."""

import re

import pytest

from tests.support.processes import run
from tests.support.redis_server import running_redis


def test_help_names_every_command():
    text = run("pointsman-server", "--help").stdout

    for command in ("dev", "serve", "migrate", "restore", "check"):
        assert re.search(rf"\b{command}\b", text)


@pytest.mark.parametrize("command", [["serve"], ["migrate"], ["restore"], ["check"]])
def test_a_missing_database_url_is_named_and_exits_2(command):
    done = run("pointsman-server", *command)

    assert done.returncode == 2
    assert "DATABASE_URL is not set" in done.stderr
    assert "Traceback" not in done.stderr


def test_wrong_settings_are_all_named_and_exit_2():
    done = run("pointsman-server", "serve", POINTSMAN_LISTN="x", POINTSMAN_WORKERS="many", DATABASE_URL="mysql://x")

    assert done.returncode == 2
    assert "POINTSMAN_LISTN is not a setting: did you mean POINTSMAN_LISTEN?" in done.stderr
    assert "POINTSMAN_WORKERS must be" in done.stderr
    assert "DATABASE_URL must be" in done.stderr


def test_migrate_brings_up_and_then_has_nothing_to_do(engines):
    from tests.support.engines import create_database, drop_database

    url = create_database(engines.urls["DATABASE_URL"])
    try:
        first = run("pointsman-server", "migrate", DATABASE_URL=url)
        second = run("pointsman-server", "migrate", DATABASE_URL=url)
    finally:
        drop_database(url)

    assert (first.returncode, second.returncode) == (0, 0)
    assert "it was at nothing" in first.stdout
    assert re.fullmatch(r"the schema is at \w+\n", second.stdout)


def test_migrate_says_when_the_database_is_down():
    done = run("pointsman-server", "migrate", DATABASE_URL="postgresql://u:canary@127.0.0.1:1/d")

    assert done.returncode == 1
    assert "PostgreSQL at 127.0.0.1:1 cannot be reached" in done.stderr
    assert "canary" not in done.stderr


def test_check_shows_settings_and_dependencies_without_secrets(database_url, redis_url, kafka_broker):
    secret = redis_url.replace("redis://", "redis://:canary@")
    good = {"DATABASE_URL": database_url, "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers}
    # Wide enough for the table, and patient with a busy machine.
    good |= {"COLUMNS": "200", "POINTSMAN_REDIS_TIMEOUT_SECONDS": "5"}

    done = run("pointsman-server", "check", REDIS_URL=redis_url, **good)
    masked = run("pointsman-server", "check", REDIS_URL=secret, **good)

    assert done.returncode == 0, done.stdout + done.stderr
    for name in ("postgres", "redis", "kafka"):
        assert re.search(rf"up\s+{name}: ok", done.stdout)
    assert "; it takes gRPC, " in done.stdout
    assert "canary" not in masked.stdout + masked.stderr
    assert "***" in masked.stdout


def test_check_says_what_is_wrong_with_a_redis_that_answers(database_url, tmp_path):
    for name in ("cluster", "rights"):
        (tmp_path / name).mkdir()
    with (
        running_redis(tmp_path / "cluster", "--cluster-enabled", "yes") as cluster,
        running_redis(tmp_path / "rights") as server,
    ):
        server.run("ACL", "SETUSER", "app", "on", ">secret", "~*", "+@all", "-@scripting")
        urls = {
            cluster.url: "is of a Redis Cluster that is down",
            server.url_of("app", "secret"): "does not let the user of REDIS_URL run scripts",
        }
        for url, words in urls.items():
            settings = {"REDIS_URL": url, "POINTSMAN_ROLES": "api", "COLUMNS": "200"}
            done = run("pointsman-server", "check", DATABASE_URL=database_url, **settings)
            assert done.returncode == 1
            assert words in " ".join(done.stdout.split())


def test_check_names_what_is_down(database_url):
    down = {"REDIS_URL": "redis://127.0.0.1:1/0", "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}

    done = run("pointsman-server", "check", DATABASE_URL=database_url, **down)

    assert done.returncode == 1
    assert "Redis at 127.0.0.1:1 does not answer" in done.stdout
    assert "Kafka at 127.0.0.1:1 does not answer" in done.stdout
