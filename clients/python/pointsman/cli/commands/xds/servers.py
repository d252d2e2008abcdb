"""Which servers the commands of ``pointsman xds`` ask, and their errors in words."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from typing import Annotated, TypeVar

import typer

from pointsman import errors
from pointsman.cli.context import Settings
from pointsman.xds.addresses import SERVER_VARIABLE, beside, split
from pointsman.xds.service import XdsServiceClient

AnswerT = TypeVar("AnswerT")

Xds = Annotated[
    list[str],
    typer.Option(
        "--xds",
        envvar=SERVER_VARIABLE,
        metavar="HOST:PORT",
        help="The xDS port of a server, which POINTSMAN_XDS_LISTEN sets there; may be given several times. "
        "Default: port 50052 of the host of --server.",
        show_default=False,
    ),
]


_WHERE = "give the address that POINTSMAN_XDS_LISTEN sets there: --xds HOST:PORT or POINTSMAN_XDS_SERVER"
_WHO = "does a server with the role xds listen there? Say where one does: --xds HOST:PORT or POINTSMAN_XDS_SERVER"


class NotXds(errors.Unimplemented):
    """What answers there does not serve xDS."""


class XdsUnavailable(errors.Unavailable):
    """Nothing answers there."""


def servers_of(xds: list[str], settings: Settings) -> tuple[str, ...]:
    """Return the addresses that ``--xds`` names, or the one beside ``--server``. Raises BadParameter."""
    try:
        return split(" ".join(xds)) or (beside(settings.server),)
    except ValueError as error:
        raise typer.BadParameter(str(error), param_hint="--xds") from error


@contextmanager
def connected(server: str, settings: Settings, as_json: bool) -> Iterator[XdsServiceClient]:
    """Connect to the xDS port of ``server`` with the credentials of all commands; its errors name it."""
    with replace(settings, server=server).connect(XdsServiceClient, as_json) as client:
        try:
            yield client
        except errors.Unimplemented as error:
            raise _naming(NotXds(f"{server} does not serve xDS"), error, _WHERE) from error
        except errors.Unavailable as error:
            raise _naming(XdsUnavailable(f"xDS on {server}: {error.message}"), error, _WHO) from error


def ask_any(
    servers: tuple[str, ...], settings: Settings, as_json: bool, ask: Callable[[XdsServiceClient], AnswerT]
) -> AnswerT:
    """Return what the first of the servers that is there answers. Raises XdsUnavailable of the last."""
    for server in servers[:-1]:
        with suppress(XdsUnavailable), connected(server, settings, as_json) as client:
            return ask(client)
    with connected(servers[-1], settings, as_json) as client:
        return ask(client)


def _naming(ours: errors.PointsmanError, error: errors.PointsmanError, advice: str) -> errors.PointsmanError:
    ours.reason, ours.metadata, ours.request_id = error.reason, error.metadata, error.request_id
    ours.add_note(advice)
    return ours
