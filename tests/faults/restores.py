"""PostgreSQL is put back to an older state, under load, the way ``docs/operating.md`` says."""

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import psycopg

from tests.faults.faulting import Scene
from tests.faults.history import Era
from tests.faults.rig import DATABASE, Rig, read_clock, read_rows
from tests.support.engines import back_up, drop_database, restore
from tests.support.processes import run

QUIET_LOOKS, QUIET_SECONDS = 5, 0.05
WRITE_SECONDS = 15.0
THROW_OUT = """
SELECT pg_terminate_backend(pid) FROM pg_stat_activity
 WHERE datname = %s AND pid <> %s AND backend_type = 'client backend'
"""


@asynccontextmanager
async def database_restored(scene: Scene) -> AsyncIterator[None]:
    """Copy the database; let it go on; put the copy in its place, and run ``pointsman-server restore``.

    ``caught``: the changes that were lost.
    """
    rig, taken = scene.rig, time.monotonic()
    backup = await asyncio.to_thread(back_up, rig.database_url)
    try:
        # A backup ends every connection. Without a write since, there is nothing that a restore could lose.
        await asyncio.to_thread(_wait_for_a_write, rig, backup)
        yield
    finally:
        scene.caught = await asyncio.to_thread(_put_back, rig, backup, taken)


def _put_back(rig: Rig, backup: str, taken: float) -> int:
    """End the era of the rig, and begin another one from the backup. Returns how many changes were lost."""
    era = rig.era
    with rig.connect() as last:
        _seal(rig, last)
        era.sealed = time.monotonic()
        era.rows = read_rows(last)
        era.relayed = read_clock(last).relayed
    with psycopg.connect(backup) as connection:
        clock = read_clock(connection)
    opened = time.monotonic()
    restore(rig.database_url, backup)
    drop_database(backup)
    done = run("pointsman-server", "restore", "--yes", DATABASE_URL=rig.database_url)
    if done.returncode:
        raise RuntimeError(done.stderr)
    lost, base = len(era.rows) - clock.revision, clock.revision
    with rig.connect() as connection:
        epoch = read_clock(connection).epoch
        # Where nothing was lost, servers go on in the old epoch until it ends.
        went_on = [row for row in read_rows(connection) if row.epoch == era.epoch and row.revision > len(era.rows)]
    if went_on and not lost:
        era.rows += went_on
        era.sealed, base = time.monotonic(), len(era.rows)
    rig.eras.append(Era(epoch, base=base, backup=taken, opened=opened, switched=time.monotonic()))
    return lost


def _wait_for_a_write(rig: Rig, backup: str) -> None:
    with psycopg.connect(backup) as connection:
        revision = read_clock(connection).revision
    give_up = time.monotonic() + WRITE_SECONDS
    with rig.connect() as connection:
        while read_clock(connection).revision == revision and time.monotonic() < give_up:
            time.sleep(0.05)


def _seal(rig: Rig, last: "psycopg.Connection[tuple[object, ...]]") -> None:
    """Let nobody in any more, and throw everybody out but ``last``: what is committed now is all there will be."""
    with rig.connect("postgres") as connection:
        connection.execute(f"ALTER DATABASE {DATABASE} ALLOW_CONNECTIONS false")
        # A session that was let in just before shows in pg_stat_activity only a moment later.
        quiet = 0
        while quiet < QUIET_LOOKS:
            thrown_out = connection.execute(THROW_OUT, [DATABASE, last.info.backend_pid]).fetchall()
            quiet = 0 if thrown_out else quiet + 1
            time.sleep(QUIET_SECONDS)
