"""A program with a near-cache that forks: ``python -m tests.support.near_cache_program ADDRESS KEY FORKS``.

Each child says what it read, whether its near-cache became live, and as which watcher. Also a WSGI application, for
gunicorn with ``--preload``: the near-cache is made and used before the workers are forked.
"""

import json
import multiprocessing
import os
import sys
from collections.abc import Callable, Iterable
from typing import Any

from pointsman import Client, NearCache

SECONDS = 20.0


def report(cache: NearCache, key: str) -> dict[str, Any]:
    """Read a key, before and after the near-cache is live."""
    first = cache.resolve(key).url
    ready = cache.wait_ready(SECONDS)
    found = cache.resolve(key)
    ids = [follower._watcher.id for follower in cache._followers]
    return {"pid": os.getpid(), "first": first, "ready": ready, "url": found.url, "live": found.live, "ids": ids}


def main(address: str, key: str, forks: int) -> None:
    """Fork, and print what the children and the parent report."""
    context = multiprocessing.get_context("fork")
    with Client(address) as client, client.cached() as cache:
        reports = [report(cache, key)]
        for _ in range(forks):
            with context.Pool(1) as pool:
                reports.append(pool.apply_async(report_of, (key,)).get(2 * SECONDS))
        reports.append(report(cache, key))
        print(json.dumps(reports), flush=True)


def report_of(key: str) -> dict[str, Any]:
    """Report from a child, which has the near-cache of its parent."""
    [cache] = _caches()
    return report(cache, key)


def _caches() -> list[NearCache]:
    import gc

    return [each for each in gc.get_objects() if isinstance(each, NearCache)]


def application() -> Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]:
    """Make the WSGI application."""
    key = os.environ["NEAR_CACHE_KEY"]
    cache = Client(os.environ["NEAR_CACHE_SERVER"]).cached()
    master = report(cache, key)

    def app(_: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        start_response("200 OK", [("content-type", "application/json")])
        return [json.dumps([master, report(cache, key)]).encode()]

    return app


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]))
