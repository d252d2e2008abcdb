"""Make a copy of the server without its remedies, in which a run must find violations.

``python -m tests.faults.remedies_off DIRECTORY`` writes the copy, ``python -m tests.faults --server-path DIRECTORY``
attacks it. What is gone: the mark before a commit, the settling after it, the look at whether Redis is behind what the
feed told, the drop of families whose change the feed tells, ``min_revision``, and the read of the history for watchers
that missed more than a server has in memory; for xDS, the wait of streams for the table of routes, the wait of a
change for the rest of its set, and the time for which clients keep what ends. What is left is a cache that misses
fill and Kafka brings up to date.
"""

import shutil
import sys
from pathlib import Path

SERVER = Path(__file__).resolve().parents[2] / "server"
# Each a file, what stands there exactly once, and what stands there instead.
PATCHES = (
    ("writes/group_commit.py", "await self._caches.mark(batch, owner)", "pass"),
    ("writes/group_commit.py", "await written.settle(owner)", "pass"),
    ("reads/resolver.py", "if snapshot.as_of < changed:", "if False:"),
    ("reads/local_cache_updater.py", "families[change.key.family_key] = change.revision", "pass"),
    ("rpc/fastpath/terms.py", "self.min_revision = request.min_revision", "self.min_revision = 0"),
    ("events/watch/hub.py", " and clock.revision >= self.recent.complete_from", ""),
    ("rpc/route_service.py", "        return request.min_revision\n", "        return 0\n"),
    ("rpc/route_service.py", "return await self._tokens.floor(request.min_revision, request.epoch)", "return 0"),
    ("rpc/methods/selection.py", "        return request.min_revision\n", "        return 0\n"),
    ("rpc/methods/selection.py", "return await self._tokens.floor(request.min_revision, request.epoch)", "return 0"),
    ("xds/server.py", "await self._loaded()", "pass"),
    ("xds/loader.py", "if change.ends_set:", "if True:"),
    ("xds/stream.py", "LINGER_SECONDS = 1.0", "LINGER_SECONDS = 0.0"),
)


def switch_off(directory: Path) -> None:
    """Write the copy. Raises ValueError where the server is not as expected any more."""
    shutil.copytree(SERVER, directory, ignore=shutil.ignore_patterns("__pycache__"))
    for name, remedy, nothing in PATCHES:
        file = directory / "pointsman_server" / name
        text = file.read_text()
        if text.count(remedy) != 1:
            raise ValueError(f"{name} does not have once: {remedy}")
        file.write_text(text.replace(remedy, nothing))


if __name__ == "__main__":
    switch_off(Path(sys.argv[1]))
