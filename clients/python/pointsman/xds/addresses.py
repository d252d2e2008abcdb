"""Addresses of the xDS port of a server."""

import re
from typing import NamedTuple

DEFAULT_PORT = 50052
SERVER_VARIABLE = "POINTSMAN_XDS_SERVER"
"""The environment variable that says where the xDS ports are."""

_SCHEME = re.compile(r"(?:dns:///)?(.*)", re.DOTALL)
_HOST_AND_PORT = re.compile(r"(\[[0-9A-Fa-f:.]+\]|[^:/\s\[\]]+)(?::(\d{1,5}))?")
_LARGEST_PORT = 65535
# Further targets of gRPC, of which nothing is left out that it would make up.
_OTHER_TARGETS = ("unix:", "unix-abstract:", "ipv4:", "ipv6:")


class Address(NamedTuple):
    """A host, without brackets, and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


def parse(text: str, default_port: int | None = None) -> Address:
    """Read ``HOST:PORT`` or ``dns:///HOST:PORT``. Without ``default_port`` the port must be given.

    Raises ValueError.
    """
    [rest] = _SCHEME.fullmatch(text).groups()  # type: ignore[union-attr]
    match = _HOST_AND_PORT.fullmatch(rest)
    if match is None or int(match[2] or 0) > _LARGEST_PORT:
        raise ValueError(f"{text!r} must be HOST:PORT")
    if match[2] is None and default_port is None:
        raise ValueError(f"{text!r} must be HOST:PORT: it has no port")
    return Address(match[1].strip("[]"), int(match[2] if match[2] is not None else default_port or 0))


def split(text: str) -> tuple[str, ...]:
    """Return the addresses of a list that is separated by commas or blanks, each once.

    Raises ValueError for one that gRPC would take for another address: without a port it would be 443.
    """
    return tuple(dict.fromkeys(map(_checked, filter(None, re.split(r"[,\s]+", text)))))


def _checked(text: str) -> str:
    if not text.startswith(_OTHER_TARGETS) and parse(text).port == 0:
        raise ValueError(f"{text!r} must be HOST:PORT: its port is 0")
    return text


def beside(server: str) -> str:
    """Return where the xDS port is by default: on the host of ``server``, the target of its other calls.

    Raises ValueError for a target that is more than a host and a port: then somebody must say where xDS is.
    """
    try:
        found = parse(server, DEFAULT_PORT)
    except ValueError:
        raise ValueError(f"where is xDS? {server!r} is no HOST:PORT that tells: say it") from None
    return str(found._replace(port=DEFAULT_PORT))
