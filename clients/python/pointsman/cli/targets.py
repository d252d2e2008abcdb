"""Which targets of gRPC stay on this machine."""

import re
from ipaddress import ip_address

_HOST_AND_PORT = re.compile(r"\[([^\]]+)\](?::\d+)?|([^:]*)(?::\d+)?")


def is_local(target: str) -> bool:
    """Say whether nobody on the network can read what is sent to ``target``: loopback, or a Unix socket.

    The forms are those of https://github.com/grpc/grpc/blob/master/doc/naming.md. What is not understood is not local.
    """
    scheme, colon, rest = target.partition(":")
    if colon and scheme in {"unix", "unix-abstract"}:
        return True
    if colon and scheme in {"ipv4", "ipv6"}:
        return all(_is_loopback(address) for address in rest.split(","))
    if colon and scheme == "dns":
        return _is_loopback(rest.rpartition("/")[2])
    return _is_loopback(target)


def _is_loopback(address: str) -> bool:
    match = _HOST_AND_PORT.fullmatch(address)
    host = (match[1] or match[2]) if match else address
    if host == "localhost" or host.endswith(".localhost"):  # RFC 6761, 6.3
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False
