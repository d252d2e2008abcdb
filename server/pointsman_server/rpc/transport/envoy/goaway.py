"""Makes Envoy answer by GOAWAY whatever arrives on an open HTTP/2 connection.

Its own drain sends GOAWAY with the next response alone. So a resource of the overload manager is a number in a file:
1 asks for GOAWAY. A call that arrives after it was not accepted, and clients make it again elsewhere (RFC 9113, 6.8).
https://www.envoyproxy.io/docs/envoy/latest/configuration/operations/overload_manager/overload_manager
"""

from pathlib import Path
from typing import Any

RESOURCE = "envoy.resource_monitors.injected_resource"
TYPE = "type.googleapis.com/envoy.extensions.resource_monitors.injected_resource.v3.InjectedResourceConfig"

# Longer than the refresh interval of the overload manager.
IN_FORCE_SECONDS = 0.4


def path(directory: Path) -> Path:
    """Return the file of the number."""
    return directory / "goaway"


def prepare(directory: Path) -> None:
    """Ask for nothing yet; Envoy does not start without the file."""
    path(directory).write_text("0")


def ask(directory: Path) -> None:
    """Ask for GOAWAY. Envoy sees it within its refresh interval, and only when the file is replaced."""
    asked = path(directory).with_suffix(".new")
    asked.write_text("1")
    asked.replace(path(directory))


def monitor(directory: Path) -> dict[str, Any]:
    """Return the resource monitor."""
    return {"name": RESOURCE, "typed_config": {"@type": TYPE, "filename": str(path(directory))}}


def shed_point() -> dict[str, Any]:
    """Return the point of load shedding that the resource triggers."""
    trigger = {"name": RESOURCE, "threshold": {"value": 1.0}}
    return {"name": "envoy.load_shed_points.http2_server_go_away_on_dispatch", "triggers": [trigger]}
