"""``pointsman-server doctor``, at a real server and its real engines."""

import json
import uuid
from pathlib import Path

import pytest
import redis

from tests.support.processes import free_port, run, serve
from tests.support.waiting import eventually


@pytest.fixture
def environ(database_url, redis_url, kafka_broker) -> dict[str, str]:
    return {
        "DATABASE_URL": database_url,
        "REDIS_URL": redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "POINTSMAN_KAFKA_TOPIC": f"doctor-{uuid.uuid4().hex}",
        "POINTSMAN_HTTP_LISTEN": f"127.0.0.1:{free_port()}",
    }


def findings(environ: dict[str, str], *arguments: str) -> tuple[int, dict[str, dict[str, str]]]:
    """Return the exit code, and the findings by severity and subject."""
    done = run("pointsman-server", "doctor", "--json", *arguments, **environ)
    assert not done.stderr, done.stderr
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return done.returncode, {f"{line['severity']} {line['subject']}": line for line in lines}


def test_it_says_what_is_well_and_what_is_not(environ: dict[str, str]) -> None:
    with serve(**environ):
        assert eventually(lambda: "ok relay" in findings(environ)[1], 60)
        code, found = findings(environ)

        # The engines of the tests are not durable, and there is one broker.
        assert code == 1
        assert " is off: a crash " in found["error postgres"]["what"]
        assert "the only broker" in found[f"warning topic {environ['POINTSMAN_KAFKA_TOPIC']}"]["what"]
        assert "nobody is authenticated" in found["warning access"]["what"]
        for subject in ("server", "postgres", "kafka", "redis", "writes", "machine"):
            assert f"ok {subject}" in found or f"warning {subject}" in found, found
        quiet = findings(environ, "--quiet")[1]
        assert set(quiet) == {name for name in found if not name.startswith("ok ")}


def test_a_redis_that_became_a_replica_is_named_by_the_server_and_by_itself(environ: dict[str, str]) -> None:
    with serve(**environ), redis.Redis.from_url(environ["REDIS_URL"]) as client:
        client.replicaof("127.0.0.1", "1")
        try:
            assert eventually(lambda: "error redis" in findings(environ)[1], 60)
            found = findings(environ)[1]
        finally:
            client.replicaof("NO", "ONE")

    assert found["error redis"]["since"].endswith("Z")
    assert found["error redis"]["works"].startswith("all reads and writes")
    (itself,) = [line for name, line in found.items() if name.startswith("error Redis at")]
    assert "is a slave" in itself["what"]


def test_what_does_not_answer_is_named_with_what_to_do() -> None:
    environ = {
        "DATABASE_URL": "postgresql://u:canary@127.0.0.1:1/d",
        "REDIS_URL": "redis://:canary@127.0.0.1:1/0",
        "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
        "POINTSMAN_HTTP_LISTEN": f"127.0.0.1:{free_port()}",
    }

    done = run("pointsman-server", "doctor", **environ)

    assert done.returncode == 1
    assert "error    server: does not answer at http://127.0.0.1:" in done.stdout
    assert "error    postgres: asked from here, cannot be reached" in done.stdout
    assert "error    redis: asked from here, Redis at 127.0.0.1:1 does not answer" in done.stdout
    assert "error    kafka: asked from here, " in done.stdout
    assert "canary" not in done.stdout + done.stderr


def test_a_policy_that_grants_nothing_and_a_file_that_is_no_certificate(
    environ: dict[str, str], tmp_path: Path
) -> None:
    (policy := tmp_path / "policy.toml").write_text("")
    environ |= {
        "POINTSMAN_API_KEYS": "true",
        "POINTSMAN_POLICY_FILE": str(policy),
        "POINTSMAN_TLS_CERT_FILE": str(policy),
        "POINTSMAN_TLS_KEY_FILE": str(policy),
    }

    found = findings(environ)[1]

    assert "grants nothing" in found["error policy"]["what"]
    assert any(name.startswith("error certificate file") for name in found), found


def test_a_url_that_is_none_is_refused(environ: dict[str, str]) -> None:
    done = run("pointsman-server", "doctor", "--url", "localhost:9464", **environ)

    assert done.returncode == 2
    assert "--url must begin with http:// or https://" in done.stderr
