"""A near-cache in a process of its own: ``python -m tests.bench.near_cache MODE ADDRESS TOKEN ROUTES FILE``.

It measures one thing and prints it as JSON: ``prototype``, ``resolve``, ``select``, ``server`` or ``disk``; or
``reach``, which first prints a line once it has all routes, and measures until its stdin ends.
"""

import gc
import json
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import quantiles

from pointsman import Client, NearCache
from pointsman.change_sets import Mutation, SetTraffic, Update
from pointsman.near_cache.base import TableChange
from tests.support.memory import resident

READ_KEYS = 1000
# Tenants, services and envs that are selected from: half of them divided 90 to 10, the others all to one version.
FAMILIES = 400
STICKY_KEYS = 10_000
SELECTS, SELECT_GOES = 20_000, 150
READS = 200_000
GOES = 15
SECONDS = 60.0


def prototype(keys: Sequence[str]) -> Callable[[str], object]:
    """Return what a read costs at least: one look into a dict, and one at the clock."""
    table = {key: (float("inf"), object()) for key in keys}

    def resolve(key: str, *, now: Callable[[], float] = time.monotonic) -> object:
        until, found = table[key]
        if now() >= until:
            raise KeyError(key)
        return found

    return resolve


def divide(client: Client, cache: NearCache) -> tuple[list[str], list[str]]:
    """Give some families a second version and traffic. Returns those that are divided, and those that are not."""
    families = [key.rpartition("/")[0] for key, _ in zip(cache.keys(), range(FAMILIES), strict=False)]
    divided, single = families[: len(families) // 2], families[len(families) // 2 :]
    mutations: list[Mutation] = []
    for weights, some in (({"v1": 9_000, "v2": 1_000}, divided), ({"v1": 10_000, "v2": 0}, single)):
        for family in some:
            mutations.append(Update(f"{family}/v2", "https://two.internal", allow_missing=True))
            mutations.append(SetTraffic(family, weights))
    until = client.commit(mutations).revision
    end = time.perf_counter() + SECONDS
    while cache.revision < until:
        if time.perf_counter() > end:
            raise SystemExit("the traffic did not come")
        time.sleep(0.001)
    return divided, single


def select_rates(cache: NearCache, divided: Sequence[str], single: Sequence[str]) -> dict[str, float]:
    """Return how many selects one thread makes in a second: where calls are divided, and where one version has all."""
    callers = [f"user-{number}" for number in range(STICKY_KEYS)]
    rates = {}
    for name, families in (("rate", divided), ("single", single)):
        asked = [(families[number % len(families)], callers[number % STICKY_KEYS]) for number in range(SELECTS)]
        best = float("inf")
        for _ in range(SELECT_GOES):
            begun = time.perf_counter()
            for family, caller in asked:
                cache.select(family, caller)
            best = min(best, time.perf_counter() - begun)
        rates[name] = len(asked) / best
    return rates


def rate(resolve: Callable[[str], object], keys: Sequence[str]) -> float:
    """Return how many reads one thread makes in a second: the best of some goes, as others share the core."""
    asked = [*keys] * (READS // len(keys))
    best = float("inf")
    for _ in range(GOES):
        begun = time.perf_counter()
        for key in asked:
            resolve(key)
        best = min(best, time.perf_counter() - begun)
    return len(asked) / best


def load(cache: NearCache, count: int) -> dict[str, float]:
    """Start a near-cache; say how long that took until it had all routes, and what each of them weighs."""
    gc.collect()
    before, begun = resident(os.getpid()), time.perf_counter()
    cache.start()
    while len(cache) < count:
        if time.perf_counter() - begun > SECONDS:
            raise SystemExit(f"only {len(cache)} routes came: {cache.last_error or cache.disk_problem}")
        time.sleep(0.001)
    seconds = time.perf_counter() - begun
    gc.collect()
    return {"seconds": seconds, "bytes": (resident(os.getpid()) - before) / count}


def reach(cache: NearCache) -> dict[str, float]:
    """Return how long after a change was made it could be read here, in milliseconds."""
    delays: list[float] = []

    def note(change: TableChange) -> None:
        now = time.time()
        made = (cache.resolve(key).route.update_time.timestamp() for key in change.keys or ())
        delays.extend((now - at) * 1e3 for at in made)

    cache.on_change(note)
    print("ready", flush=True)
    sys.stdin.read()
    cuts = quantiles(delays, n=100)
    return {"p50": cuts[49], "p99": cuts[98], "changes": len(delays)}


def main(mode: str, address: str, token: str, count: int, path: Path) -> dict[str, float]:
    """Measure."""
    if mode == "disk":
        with Client("127.0.0.1:1") as nowhere:
            return load(nowhere.cached(path=path), count)
    with Client(address, token=token) as client:
        cache = client.cached(path=path if mode == "server" else None)
        figures = load(cache, count)
        if not cache.wait_ready(SECONDS):
            raise SystemExit(f"the near-cache is not ready: {cache.last_error}")
        if mode == "server":
            return figures
        if mode == "reach":
            return reach(cache)
        if mode == "select":
            chosen = divide(client, cache)
            before = cache.statistics()
            figures |= select_rates(cache, *chosen)
            after = cache.statistics()
            if after.calls > before.calls or after.reads - before.reads < SELECT_GOES * SELECTS:
                raise SystemExit("selects went elsewhere")
            return figures
        keys = [key for key, _ in zip(cache.keys(), range(READ_KEYS), strict=False)]
        figures["rate"] = rate(cache.resolve if mode == "resolve" else prototype(keys), keys)
        # Each read was answered by the table, and counted.
        if mode == "resolve" and cache.statistics().reads < GOES * READS:
            raise SystemExit("reads went elsewhere")
        return figures


if __name__ == "__main__":
    chosen, at, credential, routes, file = sys.argv[1:]
    print(json.dumps(main(chosen, at, credential, int(routes), Path(file))), flush=True)
