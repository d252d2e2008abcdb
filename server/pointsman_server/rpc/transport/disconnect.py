"""Close the connection of a peer, which neither transport offers: by its socket, which is one of this process.

Shut down from outside the transport sees the end of the connection, and lets go of all that it held for it.
"""

import os
import socket
import stat
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote

DESCRIPTORS = Path("/dev/fd")  # on Linux a link to /proc/self/fd


def disconnect(peer: str) -> bool:
    """Close the connections of ``peer``, as a gRPC context names it; says whether there was one. Blocks for a while."""
    wanted = _address(peer)
    if wanted is None:
        return False
    return any(_shut(int(path.name), wanted) for path in list(DESCRIPTORS.iterdir()))


def _address(peer: str) -> tuple[str, int] | None:
    """Read ``ipv4:127.0.0.1:80`` or ``ipv6:%5B::1%5D:80``."""
    family, _, rest = peer.partition(":")
    host, _, port = unquote(rest).rpartition(":")
    if family not in ("ipv4", "ipv6") or not port.isdecimal():
        return None
    return host.strip("[]"), int(port)


def _shut(descriptor: int, wanted: tuple[str, int]) -> bool:
    # A copy, so that it stays the same socket even if the transport closes its own meanwhile.
    with suppress(OSError):
        copy = os.dup(descriptor)
        if not stat.S_ISSOCK(os.fstat(copy).st_mode):
            os.close(copy)
            return False
        with closing(socket.socket(fileno=copy)) as found:
            address = found.getpeername()
            if found.family in (socket.AF_INET, socket.AF_INET6) and _plain(address) == wanted:
                found.shutdown(socket.SHUT_RDWR)
                return True
    return False


def _plain(address: tuple[str, int]) -> tuple[str, int]:
    # A socket for both families shows IPv4 as IPv6; gRPC does not.
    return address[0].removeprefix("::ffff:"), address[1]
