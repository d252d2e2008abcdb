"""The commands of ``pointsman traffic``, and where they are."""

from collections.abc import Mapping
from typing import ClassVar

from pointsman.cli.lazy import LazyGroup


class TrafficCommands(LazyGroup):
    """Show and change how calls are divided between versions."""

    homes: ClassVar[Mapping[str, str]] = {
        "get": "pointsman.cli.commands.traffic.read:get",
        "list": "pointsman.cli.commands.traffic.read:list_traffic",
        "set": "pointsman.cli.commands.traffic.write:set_traffic",
        "shift": "pointsman.cli.commands.traffic.write:shift",
        "promote": "pointsman.cli.commands.traffic.write:promote",
        "delete": "pointsman.cli.commands.traffic.write:delete_traffic",
    }
