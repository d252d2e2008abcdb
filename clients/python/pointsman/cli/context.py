"""What every command is given: the global options, and from them the client and the terminal."""

import asyncio
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar

import typer

from pointsman.base import BaseClient
from pointsman.cli.output.terminal import Color, Terminal
from pointsman.client import Client

if TYPE_CHECKING:
    from pointsman.aio import AsyncClient

AnyClient = TypeVar("AnyClient", bound=BaseClient[Any])

_HOST_AND_PORT = re.compile(r"\[([^\]]+)\](?::\d+)?|([^:]*)(?::\d+)?")


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options. ``timeout`` is in seconds; each of the files but that of the token implies TLS."""

    server: str
    timeout: float
    as_json: bool
    color: Color
    token: str | None = field(repr=False)
    token_file: Path | None
    tls: bool | None
    ca_file: Path | None
    cert_file: Path | None
    key_file: Path | None

    def terminal(self, as_json: bool) -> Terminal:
        """Return where to write; ``as_json`` is the option after the command, as good as the global one."""
        return Terminal(self.as_json or as_json, self.color)

    def client(self, as_json: bool) -> Client:
        """Return a client for one command. Raises BadParameter for options that cannot be used."""
        return self.connect(Client, as_json)

    def async_client(self, as_json: bool) -> "AsyncClient":
        """Return a client for a command that does many things at once. Raises as ``client`` does."""
        from pointsman.aio import AsyncClient

        return self.connect(AsyncClient, as_json)

    def connect(self, kind: type[AnyClient], as_json: bool) -> AnyClient:
        """Return a client of that kind. Raises as ``client`` does."""
        try:
            client = kind(
                self.server,
                timeout=self.timeout,
                token=self.token,
                token_file=self.token_file,
                tls=self.tls,
                ca_file=self.ca_file,
                cert_file=self.cert_file,
                key_file=self.key_file,
            )
        except ValueError as error:
            raise typer.BadParameter(str(error), param_hint="the connection") from error
        if self._tells_the_network():
            self.terminal(as_json).note(
                "warning: the token goes to the server in plain text: use --tls, or say --plaintext if that is meant"
            )
        return client

    def _tells_the_network(self) -> bool:
        """Say whether the bearer token would be sent in plain text without ``--plaintext``."""
        has_token = self.token is not None or self.token_file is not None
        has_tls = self.tls is not None or self.ca_file is not None or self.cert_file is not None
        return has_token and not has_tls and not is_local(self.server)


@contextmanager
def closing(client: "AsyncClient", loop: asyncio.Runner) -> Iterator["AsyncClient"]:
    """Close the client at the end, in its loop."""
    try:
        yield client
    finally:
        loop.run(client.close())


def is_local(target: str) -> bool:
    """Say whether ``target`` is on this machine, so that the network cannot read the call: loopback, or a Unix socket.

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


def one_token(context: typer.Context, token: str | None, token_file: Path | None) -> tuple[str | None, Path | None]:
    """Return the token or its file, of which at most one may be given; an option counts more than a variable.

    Raises BadParameter when both are options, or both are variables.
    """
    if not (token and token_file):
        return token or None, token_file
    options = [name for name in ("token", "token_file") if _source(context, name) == "COMMANDLINE"]
    if len(options) != 1:
        raise typer.BadParameter("give one of them", param_hint="--token and --token-file")
    return (token, None) if options == ["token"] else (None, token_file)


def said(context: typer.Context, tls: bool, plaintext: bool) -> bool | None:
    """Return whether to use TLS, or None if neither says it. An option counts more than the variable.

    Raises BadParameter when both options are given.
    """
    if plaintext and tls and _source(context, "tls") == "COMMANDLINE":
        raise typer.BadParameter("give one of them", param_hint="--tls and --plaintext")
    if plaintext or _source(context, "tls") == "DEFAULT":
        return False if plaintext else None
    return tls


def _source(context: typer.Context, name: str) -> str:
    source = context.get_parameter_source(name)
    return source.name if source else ""


def settings(context: typer.Context) -> Settings:
    """Return the global options of the running command."""
    found = context.find_object(Settings)
    if found is None:
        raise RuntimeError("the callback of the application has not run")
    return found


def labels_of(pairs: list[str]) -> dict[str, str]:
    """Return the labels of ``--label NAME=VALUE``. Raises BadParameter for a pair without ``=`` or a name twice."""
    labels: dict[str, str] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals:
            raise typer.BadParameter(f"{pair!r} must be NAME=VALUE", param_hint="--label")
        if name in labels:
            raise typer.BadParameter(f"{name!r} is given twice", param_hint="--label")
        labels[name] = value
    return labels


Key = Annotated[str, typer.Argument(metavar="KEY", help="tenant/service/env/version", show_default=False)]
Family = Annotated[str, typer.Argument(metavar="TENANT/SERVICE/ENV", show_default=False)]
StickyKey = Annotated[
    str,
    typer.Option("--key", metavar="STICKY_KEY", help="Keeps a caller at its version, like a user id; else at random."),
]
AsOf = Annotated[
    str,
    typer.Option(
        "--as-of",
        metavar="MOMENT",
        help="As it was then: a revision, a time in UTC like '2026-11-20 14:00' or RFC 3339, or '2h ago'.",
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]
Label = Annotated[list[str], typer.Option("--label", metavar="NAME=VALUE", help="May be given several times.")]
Expected = Annotated[int, typer.Option("--expected-revision", min=0, help="Only if the route is at it; 0: any.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the history.")]
RequestId = Annotated[str, typer.Option("--request-id", help="The same id has its effect once, however often sent.")]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Show what would change, change nothing.")]
Wait = Annotated[
    str, typer.Option("--wait", metavar="[=5s]", help="Then wait so long for every watcher to have it; else exit 5.")
]
Tenant = Annotated[str, typer.Option("--tenant", help="Only this tenant.")]
Service = Annotated[str, typer.Option("--service", help="Only this service.")]
Env = Annotated[str, typer.Option("--env", help="Only this environment.")]
