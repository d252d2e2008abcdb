"""The programs that others wrote and we measure with, or against: installed where that can be done, else said."""

import os
import platform
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

INSTALL_SECONDS = 300


@dataclass(frozen=True, slots=True)
class Program:
    """A program, the Debian package that has it, how it says its version, and what is not measured without it."""

    name: str
    package: str
    version: str
    without: str


H2LOAD = Program("h2load", "nghttp2-client", r"nghttp2/(\S+)", "every row that h2load loads")
ETCD = Program("etcd", "etcd-server", r"etcd Version: (\S+)", "every row beside etcd")
PROGRAMS = (H2LOAD, ETCD)


def available(say: Callable[[str], None], *, install: bool = True) -> dict[str, str]:
    """Find the programs, installing what is missing if that can be done. Returns the version of each that is there."""
    missing = [program for program in PROGRAMS if not shutil.which(program.name)]
    if missing and install:
        for line in _install(missing):
            say(line)
    return {program.name: _version(program) for program in PROGRAMS if shutil.which(program.name)}


def left_out(found: Mapping[str, str]) -> list[str]:
    """Say what is not measured for want of a program."""
    return [
        f"{program.name} is missing (Debian: {program.package}): without {program.without}"
        for program in PROGRAMS
        if program.name not in found
    ]


def _install(programs: list[Program]) -> Iterator[str]:
    packages = [program.package for program in programs]
    if not _can_install():
        yield f"not installing {' '.join(packages)}: that takes root on Debian"
        return
    yield f"installing {' '.join(packages)}"
    # A server that starts by itself would be in the way: policy-rc.d and systemd are told so by the environment.
    environment = os.environ | {"DEBIAN_FRONTEND": "noninteractive", "RUNLEVEL": "1"}
    for command in (("apt-get", "update", "-qq"), ("apt-get", "install", "-y", "-qq", *packages)):
        done = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=INSTALL_SECONDS, check=False
        )
        if done.returncode != 0:
            yield f"`{' '.join(command)}` failed: {done.stderr.strip()[-300:]}"
            return


def _can_install() -> bool:
    debian = Path("/etc/debian_version").exists() and shutil.which("apt-get") is not None
    return platform.system() == "Linux" and debian and os.geteuid() == 0


def _version(program: Program) -> str:
    done = subprocess.run([program.name, "--version"], capture_output=True, text=True, timeout=10, check=False)
    found = re.search(program.version, done.stdout + done.stderr)
    return found[1] if found else "unknown"
