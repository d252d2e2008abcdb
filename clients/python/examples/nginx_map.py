"""Keeps a map of nginx current: the live URL of each key of a tenant.

    python nginx_map.py --tenant team-a --map /etc/nginx/routes.map --reload "nginx -s reload"

In nginx.conf, for requests that name their route::

    map $http_x_route $route_url { include /etc/nginx/routes.map; }

The file is replaced as a whole, so nginx reads the old one or the new one. Without a server the last one stays. The
address and the credentials of the server are in POINTSMAN_SERVER and the other variables of the command.
"""

import argparse
import logging
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from pointsman import Client, NearCacheStale, Route
from pointsman.near_cache.near_cache import NearCache

LOG = logging.getLogger("nginx-map")
TOGETHER_SECONDS = 0.2
"""Changes that come so soon after each other are one reload."""
AGAIN_SECONDS = 5.0
"""After a reload that failed, and between two looks at whether the table is stale."""
RELOAD_SECONDS = 30.0
# What a value between double quotes may have: not a variable ($), nor what ends or escapes it.
PLAIN_URL = re.compile(r'[^\s"\\$;{}]+')


def rendered(routes: Iterable[Route]) -> str:
    """Return the entries of the map. A route that nginx cannot tell from another, or would not read, is left out."""
    every = list(routes)
    # nginx compares the keys of a map without regard to case, and refuses one that comes twice.
    times = Counter(str(route.key).lower() for route in every)
    lines = []
    for route in every:
        if times[str(route.key).lower()] > 1 or not PLAIN_URL.fullmatch(route.url):
            LOG.warning("%s is left out: nginx cannot hold its key or its URL", route.key)
        else:
            lines.append(f'{route.key} "{route.url}";\n')
    return "".join(lines)


def replaced(path: Path, text: str) -> bool:
    """Make ``text`` the content of a file, at once or not at all. Returns whether it was another one."""
    try:
        if path.read_text() == text:
            return False
    except FileNotFoundError:
        pass
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text)
            file.flush()
            os.fchmod(file.fileno(), 0o644)
            os.fsync(file.fileno())
        Path(name).replace(path)
    except BaseException:
        Path(name).unlink(missing_ok=True)
        raise
    return True


def reloaded(command: str) -> bool:
    """Run the command that makes nginx read the map. Returns whether it succeeded."""
    try:
        subprocess.run(shlex.split(command), check=True, timeout=RELOAD_SECONDS)
    except (OSError, subprocess.SubprocessError) as error:
        LOG.error("the reload failed: %s: trying again", error)  # noqa: TRY400 - the message says all
        return False
    return True


def keep_current(near_cache: NearCache, path: Path, command: str, stop: threading.Event) -> None:
    """Write the map and reload nginx after each change, until ``stop`` is set."""
    changed = threading.Event()
    changed.set()
    end = near_cache.on_change(lambda _: changed.set())
    owed = False  # a reload
    try:
        while not stop.is_set():
            if changed.wait(AGAIN_SECONDS) and not stop.wait(TOGETHER_SECONDS):
                changed.clear()
                try:
                    owed = replaced(path, rendered(near_cache.routes())) or owed
                except NearCacheStale:
                    LOG.info("waiting for the table")  # on_change tells when it is there
            if owed and not stop.is_set():
                owed = not reloaded(command)
            if not near_cache.healthy:
                LOG.warning("the map may be stale: no word from a server for %.0f s", near_cache.age)
    finally:
        end()


def main() -> None:
    """Run until SIGTERM or Ctrl-C."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--tenant", required=True)
    parser.add_argument("--map", required=True, type=Path, help="the file to keep")
    parser.add_argument("--reload", required=True, help="the command that makes nginx read it")
    parser.add_argument("--cache", type=Path, help="a file from which to start when no server can be reached")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    with (
        Client.from_environment() as client,
        client.cached(tenants=[arguments.tenant], path=arguments.cache, name="nginx-map") as near_cache,
    ):
        keep_current(near_cache, arguments.map, arguments.reload, stop)


if __name__ == "__main__":
    main()
