"""``pointsman-server policy`` and ``pointsman-server keys``: what they say, and how they end."""

import json
import re
import subprocess
from pathlib import Path

import pytest

from tests.support.processes import run, serve

POLICY = """
[[grant]]
subjects = ["jwt:alice", "key:ci-*"]
roles = ["writer"]
tenants = ["team-a"]
envs = ["staging"]

[[grant]]
claim = "groups"
value = "platform"
roles = ["admin"]
tenants = ["*"]
"""
BROKEN = POLICY.replace('"admin"', '"root"')
KEY = re.compile(r"pmk_[a-z2-7]{10}_[0-9A-Za-z]{49}")


@pytest.fixture
def policy(tmp_path: Path) -> str:
    path = tmp_path / "policy.toml"
    path.write_text(POLICY)
    return str(path)


@pytest.fixture
def broken(tmp_path: Path) -> str:
    path = tmp_path / "broken.toml"
    path.write_text(BROKEN)
    return str(path)


def explain(*arguments: str, **environ: str) -> subprocess.CompletedProcess[str]:
    return run("pointsman-server", "policy", "explain", *arguments, **environ)


def keys(database_url: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return run("pointsman-server", "keys", *arguments, DATABASE_URL=database_url)


@pytest.mark.parametrize(
    ("subject", "can", "on", "more", "code"),
    [
        ("jwt:alice", "routes.write", "team-a/payments/staging", [], 0),
        ("key:ci-7", "Create", "team-a/payments/staging/v1", [], 0),
        ("jwt:alice", "Create", "team-a/payments/prod", [], 1),
        # Where no env is said, all are meant.
        ("jwt:alice", "Create", "team-a", [], 1),
        ("jwt:alice", "Create", "team-a/payments", [], 1),
        ("jwt:alice", "Resolve", "team-a/payments/staging", [], 1),
        ("jwt:bob", "ListChanges", "*", ["--claim", "groups=other", "--claim", "groups=platform"], 0),
        ("jwt:bob", "ListChanges", "*", ["--claim", "groups=other"], 1),
        ("dns:web.internal", "Get", "team-b", ["--grant", "reader:team-b"], 0),
        ("dns:web.internal", "Get", "*", ["--grant", "reader:team-b"], 1),
    ],
)
def test_explain_answers_by_its_exit_code(
    policy: str, subject: str, can: str, on: str, more: list[str], code: int
) -> None:
    done = explain("--as", subject, "--can", can, "--on", on, "--policy", policy, *more)

    assert done.returncode == code, done.stdout + done.stderr
    assert done.stdout.startswith("denied: " if code else "allowed: ")


def test_explain_says_what_each_rule_has_to_do_with_it(policy: str) -> None:
    asked = ("--as", "jwt:alice", "--can", "Create", "--on", "team-a/payments/prod")
    done = explain(*asked, POINTSMAN_POLICY_FILE=policy, POINTSMAN_API_KEYS="true")

    assert done.stdout.splitlines() == [
        "denied: jwt:alice, routes.write in team-a/*/prod",
        f"  no  grant 1 of {policy}: its envs are staging, not prod",
        f"  no  grant 2 of {policy}: the claim groups does not hold platform",
    ]


def test_explain_as_json(policy: str) -> None:
    asked = ("--as", "key:ci-1", "--can", "Create", "--on", "team-a/payments/staging")
    done = explain(*asked, "--policy", policy, "--json")

    answer = json.loads(done.stdout)
    assert {name: answer[name] for name in ("allowed", "permission", "tenant", "env")} == {
        "allowed": True,
        "permission": "routes.write",
        "tenant": "team-a",
        "env": "staging",
    }
    assert [reason["allows"] for reason in answer["reasons"]] == [True, False]


def test_explain_without_a_policy_knows_the_credential_alone() -> None:
    done = explain("--as", "jwt:alice", "--can", "Get", "--on", "team-a")

    assert done.returncode == 1
    assert "there is no policy, and the credential grants nothing" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (("--as", "alice", "--can", "Get", "--on", "a"), "--as 'alice' is no subject: it begins with jwt:, key:"),
        (("--as", "jwt:", "--can", "Get", "--on", "a"), "--as 'jwt:' is no subject"),
        (("--as", "jwt:a", "--can", "Fly", "--on", "a"), "--can 'Fly' is neither a permission (routes.read,"),
        (("--as", "jwt:a", "--can", "Get", "--on", "a/b/c/d/e"), "is no tenant[/service[/env]]"),
        (("--as", "jwt:a", "--can", "Get", "--on", "a//c"), "is no tenant[/service[/env]]"),
        (("--as", "jwt:a", "--can", "Get", "--on", "a", "--claim", "x"), "--claim 'x' is no name=value"),
        (("--as", "jwt:a", "--can", "Get", "--on", "a", "--grant", "x"), "'x' is no grant"),
        (("--as", "jwt:a", "--can", "Get", "--on", "a", "--policy", "none.toml"), "none.toml cannot be read"),
        (("--as", "jwt:a"), "Missing option"),
    ],
)
def test_a_wrong_question_ends_with_2(arguments: tuple[str, ...], problem: str) -> None:
    done = explain(*arguments, COLUMNS="200")

    assert (done.returncode, done.stdout) == (2, "")
    assert problem in done.stderr
    assert "Traceback" not in done.stderr


def test_check_says_that_a_policy_is_fine_or_what_is_wrong(policy: str, broken: str) -> None:
    fine = run("pointsman-server", "policy", "check", policy)
    by_setting = run("pointsman-server", "policy", "check", POINTSMAN_POLICY_FILE=policy, POINTSMAN_API_KEYS="true")
    wrong = run("pointsman-server", "policy", "check", broken)
    none = run("pointsman-server", "policy", "check")

    assert [done.returncode for done in (fine, by_setting, wrong, none)] == [0, 0, 1, 2]
    assert fine.stdout == by_setting.stdout == f"{policy} is fine: 2 rules\n"
    assert f"grant 2 of {broken}: roles: there is no role 'root'" in wrong.stderr
    assert "set POINTSMAN_POLICY_FILE" in none.stderr


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_with_a_broken_policy_does_not_start(broken: str, workers: str, unused_tcp_port: int) -> None:
    engines = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    engines |= {"DATABASE_URL": "postgresql://u@127.0.0.1:1/d", "REDIS_URL": "redis://127.0.0.1:1/0"}
    ours = {"POINTSMAN_POLICY_FILE": broken, "POINTSMAN_API_KEYS": "true", "POINTSMAN_WORKERS": workers}

    done = run("pointsman-server", "serve", POINTSMAN_LISTEN=f"127.0.0.1:{unused_tcp_port}", **engines, **ours)

    assert done.returncode == 2
    assert f"grant 2 of {broken}: roles: there is no role 'root': the roles are" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_policy_without_authentication_is_refused(policy: str) -> None:
    done = run("pointsman-server", "serve", POINTSMAN_POLICY_FILE=policy)

    assert done.returncode == 2
    assert "POINTSMAN_POLICY_FILE is set, and authentication is off: set" in done.stderr


def test_a_server_with_a_policy_and_keys_starts(policy: str, database_url: str, redis_url: str) -> None:
    ours = {"POINTSMAN_POLICY_FILE": policy, "POINTSMAN_API_KEYS": "true", "POINTSMAN_ROLES": "api"}

    with serve(DATABASE_URL=database_url, REDIS_URL=redis_url, **ours) as (process, _, _):
        assert process.stop() == 0


def test_a_key_is_shown_once_and_never_again(database_url: str) -> None:
    made = keys(
        database_url, "create", "ci", "--grant", "reader:team-a", "--grant", "writer:team-b:prod", "--by", "ann"
    )
    listed = keys(database_url, "list")
    as_json = keys(database_url, "list", "--json")

    assert made.returncode == 0, made.stderr
    # The key alone, so that it can be piped to where it is kept.
    assert KEY.fullmatch(made.stdout.removesuffix("\n"))
    assert "It is shown this once" in made.stderr
    key_id, secret = made.stdout.strip().removeprefix("pmk_").split("_")
    assert re.search(
        rf"^ci +{key_id} +current +\S+Z +reader:team-a,writer:team-b:prod +\S+Z +ann$", listed.stdout, re.MULTILINE
    )
    (row,) = json.loads(as_json.stdout)
    assert (row["id"], row["state"], row["created_by"]) == (key_id, "current", "ann")
    assert set(row) == {
        "id", "name", "state", "grants", "created_at", "created_by", "expires_at", "replaced_at", "revoked_at",
        "revoked_by",
    }  # fmt: skip
    for output in (made.stderr, listed.stdout, listed.stderr, as_json.stdout, as_json.stderr):
        assert secret not in output


def test_a_key_lives_90_days_unless_told_otherwise(database_url: str) -> None:
    for arguments in (["a"], ["b", "--expires-in", "12h"], ["c", "--never-expires"]):
        assert keys(database_url, "create", *arguments).returncode == 0

    rows = json.loads(keys(database_url, "list", "--json").stdout)

    from datetime import datetime

    lives = [
        row["expires_at"] and datetime.fromisoformat(row["expires_at"]) - datetime.fromisoformat(row["created_at"])
        for row in rows
    ]
    assert [life and life.total_seconds() for life in lives] == [90 * 86_400, 12 * 3_600, None]


def test_a_rotation_shows_a_new_key_and_keeps_the_old_one_for_a_while(database_url: str) -> None:
    old = json.loads(keys(database_url, "create", "ci", "--grant", "reader:team-a", "--json").stdout)
    new = json.loads(keys(database_url, "rotate", "ci", "--overlap", "1h", "--json").stdout)

    assert KEY.fullmatch(new["key"])
    assert (new["name"], new["grants"]) == ("ci", ["reader:team-a"])
    rows = {row["id"]: row["state"] for row in json.loads(keys(database_url, "list", "--json").stdout)}
    assert rows == {old["id"]: "replaced", new["id"]: "current"}


def test_a_key_is_revoked_by_name_or_by_id(database_url: str) -> None:
    first = json.loads(keys(database_url, "create", "a", "--json").stdout)
    second = json.loads(keys(database_url, "create", "b", "--json").stdout)

    by_name = keys(database_url, "revoke", "a", "--by", "bob")
    by_id = keys(database_url, "revoke", second["id"])
    again = keys(database_url, "revoke", "a")

    assert by_name.stdout == f"revoked a ({first['id']})\n"
    assert by_id.stdout == f"revoked b ({second['id']})\n"
    assert again.returncode == 1
    assert "no living key has the name or the id a" in again.stderr
    rows = json.loads(keys(database_url, "list", "--json").stdout)
    assert (rows[0]["state"], rows[0]["revoked_by"]) == ("revoked", "bob")


def test_a_taken_name_and_a_missing_one_end_with_1(database_url: str) -> None:
    keys(database_url, "create", "ci")

    taken, missing = keys(database_url, "create", "ci"), keys(database_url, "rotate", "none")

    assert (taken.returncode, taken.stdout) == (missing.returncode, missing.stdout) == (1, "")
    assert "a living key is called ci: rotate or revoke it" in taken.stderr
    assert "no living key is called none" in missing.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["create", "-c"], "No such option"),
        (["create", "a/b"], "the name 'a/b' must be 1 to 63"),
        (["create", "a", "--grant", "root:x"], "there is no role 'root'"),
        (["create", "a", "--expires-in", "soon"], "--expires-in must be a time such as 30m, 12h or 90d"),
        (["create", "a", "--expires-in", "0d"], "--expires-in must be a time"),
        (["create", "a", "--expires-in", "9999999d"], "at most 36500d"),
        (["create", "a", "--expires-in", "1d", "--never-expires"], "exclude each other"),
        (["create", "a", "--by", "a\nb"], "--by must be 1 to 128 printable characters"),
        (["rotate", "a", "--overlap", "-1h"], "--overlap must be a time"),
    ],
)
def test_wrong_usage_ends_with_2_and_makes_nothing(arguments: list[str], problem: str) -> None:
    # Nothing is asked of the database, or this would end with 1.
    done = run("pointsman-server", "keys", *arguments, DATABASE_URL="postgresql://u@127.0.0.1:1/d", COLUMNS="200")

    assert (done.returncode, done.stdout) == (2, ""), done.stderr
    assert problem in done.stderr


def test_a_database_that_is_away_or_old_is_named_without_its_password(engines, unused_tcp_port: int) -> None:
    from tests.support.engines import create_database, drop_database

    away = keys(f"postgresql://u:canary@127.0.0.1:{unused_tcp_port}/d", "list")
    empty = create_database(engines.urls["DATABASE_URL"])
    old = keys(empty, "create", "ci")
    drop_database(empty)

    assert (away.returncode, old.returncode) == (1, 1)
    assert "cannot be reached" in away.stderr
    assert "has no schema: run `pointsman-server migrate`" in old.stderr
    assert "canary" not in away.stderr
