"""The ``version_info`` of responses: a hash of their content, and the revision that they are true as of.

The hash is equal on all servers that send the same. By the revision, a server that has not followed as far as the one
before notices that a client that connects has something later already (``Stream``).
"""

from pointsman_server.ports.store import Clock

_SEPARATOR = "."
# Of the largest revision, 2^63 - 1.
_MOST_DIGITS = 19


def version_info(content: str, clock: Clock) -> str:
    """Return the version of a response. ``content``: its hash."""
    return _SEPARATOR.join((content, str(clock.revision), clock.epoch))


def clock_of(version: str) -> Clock | None:
    """Return what a response of this version is true as of; None where it is not of a server that says so."""
    _, _, clock = version.partition(_SEPARATOR)
    revision, _, epoch = clock.partition(_SEPARATOR)
    if len(revision) > _MOST_DIGITS or not (revision.isascii() and revision.isdecimal()):
        return None
    return Clock(epoch, int(revision))
