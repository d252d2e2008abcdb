"""Closes the connection of a peer through its socket, because neither transport can.

When the socket is shut down, the transport sees the end of the connection and frees the memory that it held for it.
"""

import os
import socket
import stat
from contextlib import closing, suppress
from pathlib import Path
from urllib.parse import unquote

DESCRIPTORS = Path("/dev/fd")  # on Linux a link to /proc/self/fd


def disconnect(peer: str) -> bool:
    """Close the connection of ``peer``, an address as a gRPC context names it. Return whether there was one. Blocks."""
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
    # A duplicate stays the same socket even if the transport closes its own descriptor meanwhile.
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
    # A dual-stack socket reports an IPv4 address as IPv6; gRPC does not.
    return address[0].removeprefix("::ffff:"), address[1]
