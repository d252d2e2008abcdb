"""What every command is given: the global options, and from them the client and the terminal."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import grpc
import typer

from pointsman.aio import AsyncClient
from pointsman.cli.terminal import Color, Terminal
from pointsman.client import Client


@dataclass(frozen=True, slots=True)
class Settings:
    """The global options. ``timeout`` is in seconds; ``ca_file`` implies TLS."""

    server: str
    timeout: float
    as_json: bool
    color: Color
    token: str | None
    tls: bool
    ca_file: Path | None

    def terminal(self, as_json: bool) -> Terminal:
        """Return where to write; ``as_json`` is the option after the command, as good as the global one."""
        return Terminal(self.as_json or as_json, self.color)

    def client(self) -> Client:
        """Return a client for one command."""
        return Client(self.server, **self._connection())

    def async_client(self) -> AsyncClient:
        """Return a client for a command that does many things at once."""
        return AsyncClient(self.server, **self._connection())

    def _connection(self) -> dict[str, Any]:
        credentials = None
        if self.tls or self.ca_file:
            credentials = grpc.ssl_channel_credentials(self.ca_file.read_bytes() if self.ca_file else None)
        return {"credentials": credentials, "token": self.token or None, "timeout": self.timeout}


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
Json = Annotated[bool, typer.Option("--json", help="Write one JSON document.")]
Label = Annotated[list[str], typer.Option("--label", metavar="NAME=VALUE", help="May be given several times.")]
Expected = Annotated[int, typer.Option("--expected-revision", min=0, help="Only if the route is at it; 0: any.")]
Reason = Annotated[str, typer.Option("--reason", help="Why, for the history.")]
RequestId = Annotated[str, typer.Option("--request-id", help="The same id has its effect once, however often sent.")]
Tenant = Annotated[str, typer.Option("--tenant", help="Only this tenant.")]
Service = Annotated[str, typer.Option("--service", help="Only this service.")]
Env = Annotated[str, typer.Option("--env", help="Only this environment.")]
