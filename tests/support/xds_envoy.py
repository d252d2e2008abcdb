"""Envoy with what is sent to it by xDS, written into its configuration: without a control plane."""

import json
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from google.protobuf import json_format

from pointsman_server.embedded.tied import tied_to_this_process
from pointsman_server.xds.protocol.messages import (
    POOL,
    HttpConnectionManager,
    Listener,
    RouteConfiguration,
)
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resources.build import message
from pointsman_server.xds.resources.clusters import cluster_names
from pointsman_server.xds.resources.envoy import join, virtual_host
from pointsman_server.xds.targets import NOT_A_NAME, Target
from pointsman_server.xds.views import View
from tests.support.xds_clients import programs


def configuration(view: View, targets: Mapping[str, Target], directory: Path) -> dict[str, Any]:
    """Return a configuration that routes each name to its target."""
    listener = message(view, ResourceType.LDS, "pointsman", NOT_A_NAME)
    _put_routes(listener, join(virtual_host(view, root, target) for root, target in targets.items()))
    clusters = [
        _static(message(view, ResourceType.CDS, name, target), message(view, ResourceType.EDS, name, target))
        for root, target in targets.items()
        for name in cluster_names(view, root, target)
    ]
    return {
        "admin": {"address": {"pipe": {"path": str(directory / "admin.sock")}}},
        "static_resources": {"listeners": [_json(listener)], "clusters": [_json(each) for each in clusters]},
    }


def _put_routes(listener: Any, routes: bytes) -> None:
    config = listener.filter_chains[0].filters[0].typed_config
    manager = HttpConnectionManager.FromString(config.value)
    manager.route_config.CopyFrom(RouteConfiguration.FromString(routes))
    config.Pack(manager)
    assert isinstance(listener, Listener)


def _static(cluster: Any, endpoints: Any) -> Any:
    if cluster.HasField("eds_cluster_config"):
        cluster.ClearField("eds_cluster_config")
        cluster.type = cluster.STATIC
        cluster.load_assignment.CopyFrom(endpoints)
    return cluster


def _json(content: Any) -> Any:
    return json_format.MessageToDict(content, preserving_proto_field_name=True, descriptor_pool=POOL)


def problem(config: Mapping[str, Any], directory: Path) -> str:
    """Return what Envoy finds wrong with a configuration; empty if it accepts it."""
    command = [*programs.envoy(), "--mode", "validate", "-l", "error", "-c", _written(config, directory)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    return "" if done.returncode == 0 else done.stderr or done.stdout


@contextmanager
def running(config: Mapping[str, Any], directory: Path) -> Iterator[None]:
    """Run Envoy until the block ends."""
    log = directory / "envoy.log"
    command = [
        *programs.envoy(),
        "-l",
        "warning",
        "--log-path",
        str(log),
        "--concurrency",
        "1",
        "--use-dynamic-base-id",
    ]
    command += ["-c", _written(config, directory)]
    process = subprocess.Popen(tied_to_this_process(command))
    try:
        yield
    finally:
        process.kill()
        process.wait()


def _written(config: Mapping[str, Any], directory: Path) -> str:
    path = directory / "envoy.json"
    path.write_text(json.dumps(config))
    return str(path)
