"""A PostgreSQL cluster of one test: with a superuser, with standbys, and to be stopped, promoted and started again."""

import os
import shutil
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
import psycopg

from pointsman_server.embedded.engines import Postgres, Site

PATIENCE_SECONDS = 60.0


class Cluster(Postgres):
    """A cluster in ``directory``, reached without a password; ``url`` is of the role ``pointsman``."""

    access = "host all all 127.0.0.1/32 trust\nhost replication all 127.0.0.1/32 trust\n"

    def __init__(self, directory: Path, access: str = "") -> None:
        """``access``: lines of pg_hba.conf that come before the one that lets everyone in."""
        self.access = access + self.access
        directory.mkdir(parents=True, exist_ok=True)
        (directory / "logs").mkdir(exist_ok=True)
        lock = os.open(directory / "lock", os.O_CREAT | os.O_RDWR)
        super().__init__(Site(directory, lock, durable=False))
        self.cluster = directory / "postgres"

    @property
    def url(self) -> str:
        return f"postgresql://pointsman@127.0.0.1:{self.port}/pointsman"

    def answer(self) -> tuple[str, str] | None:
        """A standby that takes reads has another word in the file."""
        status = self.cluster / "postmaster.pid"
        lines = status.read_text().splitlines() if status.exists() else []
        return ("DATABASE_URL", self.url) if len(lines) >= 8 and lines[7].strip() in ("ready", "standby") else None

    def run_sql(self, sql: str) -> list[tuple[object, ...]]:
        """Run a statement as the superuser, and return its rows."""
        with psycopg.connect(self.url, user="postgres", autocommit=True) as connection:
            cursor = connection.execute(sql.encode())
            return cursor.fetchall() if cursor.description else []

    def begin(self) -> None:
        """Start, and wait until it answers."""
        self.start()
        give_up = time.monotonic() + PATIENCE_SECONDS
        while self.ready() is None:
            if time.monotonic() > give_up:
                raise self.failure("does not answer")
            time.sleep(0.02)

    def crash(self) -> None:
        """End at once, as when the machine is lost: without a checkpoint, and without telling the standbys anything."""
        assert self.process
        self.process.send_signal(signal.SIGQUIT)
        self.process.wait(PATIENCE_SECONDS)

    def wait_for_standby(self) -> None:
        """Answer commits from now on only once a standby has them, as ``synchronous_standby_names`` says."""
        self.run_sql("ALTER ROLE pointsman SET synchronous_commit = on")
        self.run_sql("ALTER SYSTEM SET synchronous_standby_names = '*'")
        self.run_sql("SELECT pg_reload_conf()")
        self._until("SELECT 1 FROM pg_stat_replication WHERE sync_state = 'sync'")

    def fall_behind(self) -> None:
        """As a standby, receive nothing more."""
        self.run_sql("ALTER SYSTEM SET primary_conninfo = ''")
        self.run_sql("SELECT pg_reload_conf()")
        self._until("SELECT 1 WHERE NOT EXISTS (SELECT FROM pg_stat_wal_receiver)")

    def _until(self, sql: str) -> None:
        give_up = time.monotonic() + PATIENCE_SECONDS
        while not self.run_sql(sql):
            if time.monotonic() > give_up:
                raise self.failure(f"never has a row of {sql!r}")
            time.sleep(0.02)

    def refuse_writes(self) -> None:
        """Turn read-only, and keep every connection. Returns when it is in force for all of them."""
        self.run_sql("ALTER SYSTEM SET default_transaction_read_only = on")
        self.run_sql("SELECT pg_reload_conf()")
        # The reload is asynchronous. A new connection that sees it was accepted after all others were signalled.
        give_up = time.monotonic() + PATIENCE_SECONDS
        while self.run_sql("SHOW default_transaction_read_only") != [("on",)]:
            if time.monotonic() > give_up:
                raise self.failure("does not turn read-only")
            time.sleep(0.02)

    def clone(self, primary: "Cluster") -> None:
        """Become a standby of ``primary``, as a copy of it; not started yet."""
        command = [str(primary.bin / "pg_basebackup"), "-h", "127.0.0.1", "-p", str(primary.port), "-U", "postgres"]
        subprocess.run([*command, "-D", str(self.cluster), "-c", "fast", "--no-sync"], check=True, capture_output=True)
        self.follow(primary)
        if os.geteuid() == 0:
            owner = primary.cluster.stat()
            for path in (self.cluster, *self.cluster.rglob("*")):
                shutil.chown(path, owner.st_uid, owner.st_gid)

    def follow(self, primary: "Cluster") -> None:
        """Be a standby of ``primary`` from the next start on."""
        with (self.cluster / "postgresql.auto.conf").open("a") as settings:
            settings.write(f"primary_conninfo = 'host=127.0.0.1 port={primary.port} user=postgres'\n")
        (self.cluster / "standby.signal").touch()

    def promote(self, old_primary: "Cluster | None" = None) -> None:
        """Become a primary, once everything that ``old_primary`` wrote is here."""
        if old_primary:
            # Not what is written: without synchronous commits, what was committed may be written only later.
            ((end,),) = old_primary.run_sql("SELECT pg_current_wal_insert_lsn()")
            give_up = time.monotonic() + PATIENCE_SECONDS
            while not self.run_sql(f"SELECT 1 WHERE pg_last_wal_replay_lsn() >= '{end}'"):
                if time.monotonic() > give_up:
                    raise self.failure("does not catch up")
                time.sleep(0.02)
        self.run_sql("SELECT pg_promote()")

    @contextmanager
    def frozen(self) -> Iterator[None]:
        """Let the sessions of ``pointsman`` hang: their connections stay open, and get no answer."""
        rows = self.run_sql("SELECT pid FROM pg_stat_activity WHERE usename = 'pointsman'")
        sessions = [psutil.Process(int(str(pid))) for (pid,) in rows]
        for session in sessions:
            session.suspend()
        try:
            yield
        finally:
            for session in sessions:
                with suppress(psutil.NoSuchProcess):
                    session.resume()

    def close(self) -> None:
        self.stop()
        os.close(self.site.lock)


@contextmanager
def primary_and_standby(directory: Path, access: str = "") -> Iterator[tuple[Cluster, Cluster]]:
    """Run a primary and a streaming standby of it."""
    primary, standby = Cluster(directory / "first", access), Cluster(directory / "second")
    try:
        primary.begin()
        standby.clone(primary)
        standby.begin()
        yield primary, standby
    finally:
        standby.close()
        primary.close()
