"""What a bootstrap is made of: where the servers are, what they may know of the client, and whom it trusts."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

_DOTS_OF_A_JWT = 2

PathLike = str | os.PathLike[str]


class Program(StrEnum):
    """What reads the bootstrap."""

    PYTHON = "python"
    GO = "go"
    NODE = "node"
    ENVOY = "envoy"


@dataclass(frozen=True, slots=True)
class ControlPlane:
    """The xDS port of one server or more, and how to connect to it; any file implies TLS."""

    servers: tuple[str, ...]
    tls: bool = False
    ca_file: str = ""
    cert_file: str = ""
    key_file: str = ""
    token_file: str = ""

    @property
    def by_tls(self) -> bool:
        """Whether the connection is by TLS."""
        return self.tls or bool(self.ca_file or self.cert_file)

    def files(self) -> Iterator[str]:
        """Yield the files that the program has to read."""
        yield from filter(None, (self.ca_file, self.cert_file, self.key_file, self.token_file))


@dataclass(frozen=True, slots=True)
class Node:
    """What the servers are told of the client. ``locality`` is region, zone and sub-zone, as many as are known."""

    id: str
    locality: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Upstreams:
    """How the client calls the URLs. ``ca_file``: whom it trusts for https URLs; empty: the system's CAs.

    Of Envoy: where it listens, and the families that it routes to; ``*`` is any, and none are all.
    """

    ca_file: str = ""
    listen: str = ""
    families: tuple[str, ...] = ()
    admin: str = ""


def control_plane(
    servers: tuple[str, ...],
    *,
    tls: bool | None = None,
    ca_file: PathLike | None = None,
    cert_file: PathLike | None = None,
    key_file: PathLike | None = None,
    token_file: PathLike | None = None,
) -> ControlPlane:
    """Return where the servers are, with absolute paths. Raises ValueError for arguments that contradict each other."""
    files = [ca_file, cert_file, key_file]
    if tls is False and any(file is not None for file in files):
        raise ValueError("TLS is switched off, but ca_file, cert_file or key_file is given")
    if (cert_file is None) != (key_file is None):
        raise ValueError("cert_file and key_file belong together: give both")
    names = ("ca_file", "cert_file", "key_file", "token_file")
    found = ControlPlane(servers, bool(tls), *map(absolute, names, (*files, token_file)))
    if found.token_file and not found.by_tls:
        raise ValueError("token_file needs TLS: gRPC sends no token in plain text. Give tls or ca_file")
    return found


def node(node_id: str, locality: str) -> Node:
    """Return the node; ``locality`` is ``REGION/ZONE/SUB_ZONE`` or less. Raises ValueError."""
    parts = tuple(locality.split("/")) if locality else ()
    if len(parts) > 3 or not all(parts):
        raise ValueError(f"locality {locality!r} must be REGION, REGION/ZONE or REGION/ZONE/SUB_ZONE")
    if not node_id:
        raise ValueError("the node must have an id")
    return Node(node_id, parts)


def token_problem(program: Program, content: bytes) -> str | None:
    """Return why ``program`` could not send the content of a token file, or None. It never repeats the content."""
    if program is not Program.ENVOY and content.strip().count(b".") != _DOTS_OF_A_JWT:
        return "gRPC sends a JWT alone, whose exp it reads (gRFC A97), and no API key"
    if program is not Program.GO and content != content.strip():
        return "it must hold the token alone, without a line end, which would be sent, too, and is refused"
    return None


def absolute(name: str, file: PathLike | None) -> str:
    """Return the path of the file that the argument ``name`` names; empty if it is None. Raises ValueError for "".

    Links stay, as tokens rotate by them.
    """
    if file == "":  # not the working directory, and not plain text without a word
        raise ValueError(f"{name} is empty: give a path, or leave it out")
    return "" if file is None else os.path.abspath(file)  # noqa: PTH100
