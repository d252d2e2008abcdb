"""configure: tells the gRPC of this process where xDS is."""

import json
import os
import socket
import threading
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import grpc
from grpc.experimental import insecure_channel_credentials

from pointsman.connection import environment
from pointsman.xds import addresses
from pointsman.xds.bootstrap import grpc_bootstrap
from pointsman.xds.options import (
    ControlPlane,
    PathLike,
    Program,
    Upstreams,
    absolute,
    control_plane,
    node,
    token_problem,
)

FILE_VARIABLE = "GRPC_XDS_BOOTSTRAP"
CONTENT_VARIABLE = "GRPC_XDS_BOOTSTRAP_CONFIG"
# Held while the environment is looked at and changed, so that of two threads one is refused.
_configuring = threading.Lock()
_CONNECTION = ("tls", "ca_file", "cert_file", "key_file", "token_file")


class AlreadyConfigured(RuntimeError):
    """gRPC reads, or may have read already, a bootstrap of other content."""


def configure(
    servers: str | Sequence[str] | None = None,
    *,
    tls: bool | None = None,
    ca_file: PathLike | None = None,
    cert_file: PathLike | None = None,
    key_file: PathLike | None = None,
    token_file: PathLike | None = None,
    https_ca_file: PathLike | None = None,
    node_id: str = "",
    locality: str = "",
) -> str:
    """Tell the gRPC of this process where xDS is, before its first channel to an ``xds:`` target.

    It sets GRPC_XDS_BOOTSTRAP_CONFIG, which gRPC reads once and programs that are started from here inherit. Call it at
    the start of the program; to call it again with the same arguments changes nothing. A channel that was called before
    it fails for good.

    What is not given is taken from the environment, as ``Client.from_environment`` does: POINTSMAN_XDS_SERVER, or port
    50052 of the host of POINTSMAN_SERVER; POINTSMAN_TLS, POINTSMAN_CA_FILE, POINTSMAN_CERT_FILE, POINTSMAN_KEY_FILE and
    POINTSMAN_TOKEN_FILE.

    Args:
        servers: the xDS port of a server, ``HOST:PORT``, or of several, as a list or separated by commas.
        tls: connect to it by TLS; any file of the next three implies it.
        ca_file: certificates in PEM to trust instead of the system's.
        cert_file: the certificate of this client in PEM, and what it is signed by. Read again when it changes.
        key_file: the private key of ``cert_file`` in PEM, not encrypted. Read again when it changes.
        token_file: a file that holds a JWT, without a line end; needs TLS. Read again before it expires.
        https_ca_file: certificates in PEM to trust for https URLs instead of the system's: see ``credentials``.
        node_id: what the client is listed as; by default the host name.
        locality: ``REGION/ZONE/SUB_ZONE``, or less of it.

    Returns the bootstrap. Raises ValueError for arguments or variables that contradict each other, and for a file that
    cannot be read; AlreadyConfigured if this process has another bootstrap.
    """
    given = dict(zip(_CONNECTION, (tls, ca_file, cert_file, key_file, token_file), strict=True))
    plane = _control_plane(os.environ, servers, {name: value for name, value in given.items() if value is not None})
    upstreams = Upstreams(absolute("https_ca_file", https_ca_file))
    for file in (*plane.files(), *filter(None, [upstreams.ca_file])):
        content = _read(file)
        problem = token_problem(Program.PYTHON, content) if file == plane.token_file else None
        if problem:
            raise ValueError(f"token_file {file}: {problem}")
    made = grpc_bootstrap(Program.PYTHON, plane, node(node_id or socket.gethostname(), locality), upstreams)
    document = json.dumps(made.document)
    with _configuring:
        _check_free(os.environ, document)
        os.environ |= made.environment | {CONTENT_VARIABLE: document}
    return document


def credentials() -> grpc.ChannelCredentials:
    """Return what a channel to an ``xds:`` target needs for TLS to https URLs; http URLs are plain text with it.

    A channel without them (``grpc.insecure_channel``) sends plain text to every URL, https too.
    """
    plain_text: grpc.ChannelCredentials = insecure_channel_credentials()  # type: ignore[no-untyped-call]
    return grpc.xds_channel_credentials(plain_text)


def servers_of(environ: Mapping[str, str], server: str) -> tuple[str, ...]:
    """Return where xDS is: what POINTSMAN_XDS_SERVER says, or else beside ``server``.

    Raises ValueError for what is no address, and when ``server`` does not tell.
    """
    return addresses.split(environ.get(addresses.SERVER_VARIABLE, "")) or (addresses.beside(server),)


def _control_plane(
    environ: Mapping[str, str], servers: str | Sequence[str] | None, given: dict[str, Any]
) -> ControlPlane:
    found = environment.arguments(environ, given)
    if found.get("token") and not found.get("cert_file"):
        raise ValueError("gRPC reads the token of xDS from a file: set POINTSMAN_TOKEN_FILE instead of POINTSMAN_TOKEN")
    given_servers = servers if servers is None or isinstance(servers, str) else " ".join(servers)
    every = servers_of(environ, found["target"]) if given_servers is None else addresses.split(given_servers)
    if not every:
        raise ValueError("servers is empty: give HOST:PORT of at least one")
    return control_plane(every, **{name: found[name] for name in _CONNECTION if name in found})


def _read(file: str) -> bytes:
    try:
        return Path(file).read_bytes()
    except OSError as error:
        raise ValueError(f"{file}: {error.strerror}") from error


def _check_free(environ: Mapping[str, str], content: str) -> None:
    if environ.get(FILE_VARIABLE):
        raise AlreadyConfigured(
            f"{FILE_VARIABLE} names {environ[FILE_VARIABLE]}, which gRPC would read instead: unset it, or do not call "
            "configure"
        )
    present = environ.get(CONTENT_VARIABLE)
    if present and present != content:
        raise AlreadyConfigured(
            f"{CONTENT_VARIABLE} is set to something else, which gRPC may have read already, or this program has "
            "inherited: call configure once, with the same arguments, before the first channel, or unset it before"
        )
