"""Real PostgreSQL and Redis for tests: started once per process, then an empty database for each test.

with session_engines() as engines:                                # once a session, 1 s
    template = create_database(engines.urls["DATABASE_URL"])      # once a session: migrate it, then disconnect
    with fresh_database(template) as url: ...                     # for each test, 30 ms in memory
    url = fresh_redis(engines.urls["REDIS_URL"])                  # for each test, 5 ms
"""

import fcntl
import itertools
import json
import os
import shutil
import tempfile
import time
from collections.abc import Collection, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import psycopg
import redis
from psycopg import sql

from pointsman_server.embedded import Engines, start

MEMORY = Path("/dev/shm")  # noqa: S108 - the directories in it are made by tempfile
MEMORY_BYTES = 2 << 30
PREFIX = "pointsman-tests-"
REDIS_DATABASES = 16
PATIENCE_SECONDS = 30.0
# Names a directory that ``lent_engines`` has filled: a session borrows running engines instead of starting its own.
LENT = "POINTSMAN_TEST_ENGINES"

_numbers = itertools.count(1)


@dataclass(frozen=True, slots=True)
class BorrowedEngines:
    """Engines that another process started; ``template`` is the URL of a database with our schema."""

    urls: dict[str, str]
    template: str
    pids: dict[str, int] = field(default_factory=dict)


@contextmanager
def session_engines(engines: Collection[str] = ("postgres", "redis")) -> Iterator[Engines]:
    """Run engines for a session. They are not durable, and their files lie in memory where there is enough."""
    place = tempfile.TemporaryDirectory(prefix=f"{PREFIX}{os.getpid()}-", dir=_directory())
    with place as data, start(Path(data), engines, durable=False) as running:
        yield running


@contextmanager
def lent_engines(directory: Path, count: int) -> Iterator[None]:
    """Run ``count`` pairs of engines, for processes whose environment variable LENT names ``directory``."""
    from pointsman_server.adapters.postgres.migrations import migrate

    with ExitStack() as stack:
        for number in range(count):
            engines = stack.enter_context(session_engines())
            template = create_database(engines.urls["DATABASE_URL"])
            migrate(template)
            pair = {"urls": engines.urls, "template": template}
            (directory / f"{number}.json").write_text(json.dumps(pair))
        yield


@contextmanager
def borrowed_engines(directory: Path) -> Iterator[BorrowedEngines]:
    """Lock a pair that no other process uses, and delete what the previous process left there.

    Raises TimeoutError when all pairs stay in use.
    """
    with ExitStack() as stack:
        pair = BorrowedEngines(**json.loads(_lock_one(directory, stack)))
        _empty(pair)
        yield pair


def _lock_one(directory: Path, stack: ExitStack) -> str:
    give_up = time.monotonic() + PATIENCE_SECONDS
    while time.monotonic() < give_up:
        for path in sorted(directory.glob("*.json")):
            file = stack.enter_context(path.open())
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            return file.read()
        time.sleep(0.01)
    raise TimeoutError(f"all engines of {directory} are in use")


def _empty(pair: BorrowedEngines) -> None:
    with redis.Redis.from_url(pair.urls["REDIS_URL"]) as client:
        client.flushall()
    query = "SELECT datname FROM pg_database WHERE datname LIKE 'test_%%' AND datname <> %s"
    with psycopg.connect(_maintenance(pair.template), autocommit=True) as connection:
        left = connection.execute(query, [_database(pair.template)]).fetchall()
    for (name,) in left:
        drop_database(urlsplit(pair.template)._replace(path=f"/{name}").geturl())


def create_database(server: str, template: str | None = None, *, encoding: str = "UTF8") -> str:
    """Create a database and return its URL. ``server`` is the URL of any database on the server.

    ``template`` is the URL of a database to copy, without open connections; without it the new database is empty.
    """
    name = f"test_{os.getpid()}_{next(_numbers)}"
    source = sql.Identifier(_database(template) if template else "template0")
    # Where nothing needs to be durable, copying the files takes two thirds of the time of the default, the log.
    create = sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy ENCODING {}")
    statement = create.format(sql.Identifier(name), source, encoding)
    with psycopg.connect(_maintenance(server), autocommit=True) as connection:
        connection.execute(statement)
    return urlsplit(server)._replace(path=f"/{name}").geturl()


def drop_database(url: str) -> None:
    """Drop the database and end its connections."""
    drop = sql.SQL("DROP DATABASE IF EXISTS {}").format(sql.Identifier(_database(url)))
    with psycopg.connect(_maintenance(url), autocommit=True) as connection:
        try:
            connection.execute(drop + sql.SQL(" WITH (FORCE)"))
        except psycopg.errors.InsufficientPrivilege:
            # Only with FORCE must one be a superuser to end an autovacuum worker.
            _end_connections(connection, _database(url))
            connection.execute(drop)


@contextmanager
def fresh_database(template: str) -> Iterator[str]:
    """Create a copy of the database ``template`` (a URL), give its URL, and drop it at the end."""
    url = create_database(template, template)
    try:
        yield url
    finally:
        drop_database(url)


def back_up(url: str) -> str:
    """Copy a database that may be in use, and return the URL of the copy. Ends its connections first."""
    name = sql.Identifier(_database(url))
    with psycopg.connect(_maintenance(url), autocommit=True) as connection:
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(name))
        try:
            _end_connections(connection, _database(url))
            return create_database(url, url)
        finally:
            connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS true").format(name))


def restore(url: str, backup: str) -> None:
    """Replace a database by a copy of ``backup``. Ends its connections."""
    drop_database(url)
    name, source = sql.Identifier(_database(url)), sql.Identifier(_database(backup))
    with psycopg.connect(_maintenance(url), autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {} TEMPLATE {} STRATEGY file_copy").format(name, source))


def fresh_redis(server: str) -> str:
    """Return the URL of an empty Redis database that no client uses.

    Copies of the template database have one epoch, so servers with different copies must not share what they cache.
    Pub/sub is shared by all databases, and so are scripts and CONFIG.
    """
    with redis.Redis.from_url(server) as client:
        mine = str(client.client_id())
        used = {int(each["db"]) for each in client.client_list() if each["id"] != mine}
    assert len(used) < REDIS_DATABASES, "every database of Redis has clients: end servers"
    number = next(number for number in _numbers if number % REDIS_DATABASES not in used) % REDIS_DATABASES
    url = urlsplit(server)._replace(path=f"/{number}").geturl()
    with redis.Redis.from_url(url) as client:
        client.flushdb()
    return url


def _end_connections(connection: psycopg.Connection, database: str) -> None:
    # Only a superuser may end an autovacuum worker; CREATE DATABASE and DROP DATABASE end it by themselves.
    end = (
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = %s AND backend_type = 'client backend'"
    )
    while connection.execute(end, [database]).fetchall():
        pass


def _directory() -> Path | None:
    """Return the memory file system where it has room (15 times as fast); delete what killed sessions left there."""
    if not MEMORY.is_dir() or not os.access(MEMORY, os.W_OK):
        return None
    for left in MEMORY.glob(f"{PREFIX}*"):
        if not psutil.pid_exists(int(left.name.removeprefix(PREFIX).partition("-")[0])):
            shutil.rmtree(left, ignore_errors=True)
    return MEMORY if shutil.disk_usage(MEMORY).free >= MEMORY_BYTES else None


def _database(url: str) -> str:
    return urlsplit(url).path.removeprefix("/")


def _maintenance(url: str) -> str:
    """Return the URL of the database ``postgres``: a database that is copied may have no connections."""
    return urlsplit(url)._replace(path="/postgres").geturl()
