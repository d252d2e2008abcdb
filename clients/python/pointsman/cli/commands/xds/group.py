"""The commands of ``pointsman xds``, and where they are."""

from collections.abc import Mapping
from typing import ClassVar

from pointsman.cli.lazy import LazyGroup


class XdsCommands(LazyGroup):
    """Let gRPC clients and Envoys follow the routes, and see what they get."""

    homes: ClassVar[Mapping[str, str]] = {
        "bootstrap": "pointsman.cli.commands.xds.bootstrap:bootstrap",
        "clients": "pointsman.cli.commands.xds.clients:clients",
        "explain": "pointsman.cli.commands.xds.explain:explain",
    }
