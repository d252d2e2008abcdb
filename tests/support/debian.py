"""Programs of Debian packages, unpacked under ``.cache/debian`` without installing them.

``python -m tests.support.debian`` (``make tools``) fetches every package of PACKAGES where apt-get and dpkg-deb are
there. An installed program is used as it is.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from tests.support.tools import CACHE

FETCH_SECONDS = 300
SYSTEM_PATH = f"{os.environ.get('PATH', '')}:/usr/sbin"


@dataclass(frozen=True, slots=True)
class Package:
    """A program, and the packages to unpack for it: its own, and those of libraries that a machine may lack.

    A name that ends with ``*`` is that of a library whose name has its version in it.
    """

    path: str
    packages: tuple[str, ...]

    @property
    def directory(self) -> Path:
        """The directory that the packages are unpacked in."""
        return CACHE / "debian" / self.packages[0]

    def find(self) -> Path | None:
        """Return the program: unpacked here, or else installed; None when there is neither."""
        here = self.directory / self.path
        installed = shutil.which(here.name, path=SYSTEM_PATH)
        return here if here.exists() else Path(installed) if installed else None

    def environment(self) -> dict[str, str]:
        """Return the environment to run the program in."""
        libraries = {str(path.parent) for path in self.directory.rglob("*.so.*")}
        return os.environ | {"LD_LIBRARY_PATH": os.pathsep.join(sorted(libraries))}


PACKAGES = {
    "pgbouncer": Package("usr/sbin/pgbouncer", ("pgbouncer", "libcares*", "libc-ares*", "libevent*")),
    "redis-server": Package("usr/bin/redis-server", ("redis-server", "redis-tools", "libjemalloc*", "liblzf*")),
    "prometheus": Package("usr/bin/prometheus", ("prometheus",)),
    "promtool": Package("usr/bin/promtool", ("prometheus",)),
}


def find(name: str) -> Path | None:
    """Return the path of a program of PACKAGES."""
    return PACKAGES[name].find()


def fetch(package: Package) -> str | None:
    """Unpack the packages of a program that is missing; return what went wrong."""
    if package.find() is not None or not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        return None
    package.directory.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=package.directory.parent) as directory:
        names = _named(package)
        done = _run("apt-get", "download", *names, cwd=directory)
        if done.returncode != 0:
            return f"{package.packages[0]} is not fetched: {done.stderr.strip()}"
        draft = Path(directory) / "unpacked"
        for archive in Path(directory).glob("*.deb"):
            done = _run("dpkg-deb", "-x", str(archive), str(draft))
            if done.returncode != 0:
                return f"{archive.name} is not unpacked: {done.stderr.strip()}"
        draft.rename(package.directory)
    return None


def _named(package: Package) -> list[str]:
    """Return the names to download: a pattern stands for the dependencies that match it."""
    names = [name for name in package.packages if not name.endswith("*")]
    patterns = tuple(name.removesuffix("*") for name in package.packages if name.endswith("*"))
    if patterns:
        depends = _run("apt-cache", "depends", *names).stdout.split()
        names += sorted({word for word in depends if word.startswith(patterns)})
    return names


def _as_root() -> tuple[str, ...] | None:
    """Return what makes a command one of root; None where there is nothing. Nobody's sudo is used but that of a CI."""
    if os.geteuid() == 0:
        return ()
    return ("sudo", "-n") if os.environ.get("CI") and shutil.which("sudo") else None


def _run(*command: str, cwd: str | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=FETCH_SECONDS, check=False)


def main() -> int:
    """Fetch what is missing. Returns 1 when something could not be fetched."""
    missing = [package for package in PACKAGES.values() if package.find() is None]
    if missing and shutil.which("apt-get") and (as_root := _as_root()) is not None:
        _run(*as_root, "apt-get", "update", "-q")
    problems = [problem for package in missing if (problem := fetch(package))]
    sys.stderr.writelines(f"{problem}\n" for problem in problems)
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
