"""Become an engine: step down from root, end with the keeper, then exec.

Runs by its path in a bare interpreter (``python -I -S launch.py PARENT SIGNAL USER COMMAND...``), because code between
fork and exec (``preexec_fn``) can deadlock in a process with threads. USER is ``-``, or ``uid:gid``, or
``uid:gid:reach``: with "reach" the engine keeps root's right to pass through directories that are closed to its user.
"""

import contextlib
import ctypes
import os
import sys

PR_SET_PDEATHSIG = 1
PR_SET_SECUREBITS = 28
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_RAISE = 2
SECBIT_NO_SETUID_FIXUP = 1 << 2
CAPABILITY_VERSION_3 = 0x20080522
CAP_DAC_OVERRIDE = 1
CAP_DAC_READ_SEARCH = 2


def _check(result: int) -> None:
    if result != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _prctl(option: int, *values: int) -> None:
    words = [ctypes.c_ulong(value) for value in (*values, 0, 0, 0, 0)[:4]]
    _check(_libc().prctl(option, *words))


def _libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _step_down(uid: int, gid: int, reach: bool) -> None:
    """Give up root for good, but keep its way through closed directories until the exec, and after it for ``reach``.

    PostgreSQL refuses to run as root, yet its files and its data often lie where no other user may go: under /root, or
    in another directory of mode 0700. Opening those to everyone is not ours to do, and a copy elsewhere would be 50 MB
    that is never removed. So two capabilities stay, in the "ambient" set, which survives an exec.
    """
    if sys.platform == "linux":
        # Capabilities then survive the change of user, and count for access(2), by which PostgreSQL looks for its
        # files. Where root may not do this, it works as long as the directories are open.
        with contextlib.suppress(OSError):
            _prctl(PR_SET_SECUREBITS, SECBIT_NO_SETUID_FIXUP)
    os.setgroups([])
    os.setgid(gid)
    os.setuid(uid)
    if sys.platform == "linux":
        _keep_passage(reach)


def _keep_passage(ambient: bool) -> None:
    header = (ctypes.c_uint32 * 2)(CAPABILITY_VERSION_3, 0)
    sets = (ctypes.c_uint32 * 6)()  # effective, permitted, inheritable; then the same for the high capabilities
    _check(_libc().capget(header, sets))
    # A container may have taken either from root: what is left is kept.
    kept = [number for number in (CAP_DAC_OVERRIDE, CAP_DAC_READ_SEARCH) if sets[1] >> number & 1]
    mask = sum(1 << number for number in kept)
    _check(_libc().capset(header, (ctypes.c_uint32 * 6)(mask, mask, mask if ambient else 0)))
    for number in kept if ambient else ():
        _prctl(PR_CAP_AMBIENT, PR_CAP_AMBIENT_RAISE, number)


def main(parent: int, signal: int, user: str, command: list[str]) -> None:
    """Turn this process into ``command``."""
    if user != "-":
        uid, gid, *reach = user.split(":")
        _step_down(int(uid), int(gid), reach=bool(reach))
    if sys.platform == "linux":
        _prctl(PR_SET_PDEATHSIG, signal)  # last, because a change of user clears it
        if os.getppid() != parent:
            sys.exit("the keeper is gone")
    os.execv(command[0], command)  # noqa: S606 - becoming the command is the point


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4:])
