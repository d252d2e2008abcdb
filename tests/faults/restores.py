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
    with rig.connect() as connection:
        epoch = read_clock(connection).epoch
    rig.eras.append(Era(epoch, base=clock.revision, backup=taken, opened=opened, switched=time.monotonic()))
    return len(era.rows) - clock.revision


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
