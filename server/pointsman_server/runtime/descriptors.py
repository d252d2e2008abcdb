"""The file descriptors that this process may have: each connection takes one."""

import sys

if sys.platform != "win32":
    import resource


def within_reach() -> int:
    """Return how many this process could have, once it has raised its limit."""
    if sys.platform == "win32":
        return sys.maxsize
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return sys.maxsize if hard == resource.RLIM_INFINITY else hard


def raise_limit(wanted: int) -> None:
    """Raise the soft limit to ``wanted``, or as near to it as the hard limit allows; programs started later have it."""
    if sys.platform == "win32":
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    reachable = min(wanted, within_reach())
    if soft != resource.RLIM_INFINITY and soft < reachable:
        resource.setrlimit(resource.RLIMIT_NOFILE, (reachable, hard))
