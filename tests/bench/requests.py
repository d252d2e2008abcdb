"""What is asked: files for the load generators, made of the demo's table of routes."""

import json
import struct
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from google.protobuf.json_format import MessageToDict

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server import demo
from pointsman_server.encoding import key_to_message

ROUTES = 2000
CREATE = {
    # ghz fills the number of the call in: every call makes a route of its own.
    "key": {"tenant": "TENANT", "service": "service-{{.RequestNumber}}", "env": "prod", "version": "v1"},
    "url": "https://payments-v1.team-a.prod.internal:8443",
    "labels": {"owner": "team-a", "tier": "gold"},
    "reason": "benchmark",
}


def resolves(*, exact: bool = False) -> list[pb.ResolveRequest]:
    """Ask once for every active route of the table; ``exact`` asks PostgreSQL itself."""
    consistency = pb.CONSISTENCY_FULLY_CONSISTENT if exact else pb.CONSISTENCY_UNSPECIFIED
    active = (route for route in demo.routes(ROUTES) if route.active)
    return [pb.ResolveRequest(key=key_to_message(route.key), consistency=consistency) for route in active]


def write_resolves(path: Path, *, exact: bool = False) -> Path:
    """Write the requests as a JSON array, which ghz goes round and round."""
    path.write_text(json.dumps([MessageToDict(request) for request in resolves(exact=exact)]))
    return path


def write_creates(path: Path, tenant: str) -> Path:
    """Write the template of requests that create routes of a tenant that has none yet."""
    path.write_text(json.dumps(CREATE).replace("TENANT", tenant))
    return path


def write_frame(path: Path) -> Path:
    """Write one request as it goes over the wire, its five bytes of prefix included."""
    body = resolves()[0].SerializeToString()
    path.write_bytes(struct.pack(">BI", 0, len(body)) + body)
    return path


def write_descriptors(path: Path) -> Path:
    """Write the service with everything that it imports."""
    files: dict[str, FileDescriptor] = {}
    _collect(pb.DESCRIPTOR, files)
    everything = FileDescriptorSet()
    for file in files.values():
        file.CopyToProto(everything.file.add())
    path.write_bytes(everything.SerializeToString())
    return path


def _collect(file: FileDescriptor, into: dict[str, FileDescriptor]) -> None:
    for dependency in file.dependencies:
        _collect(dependency, into)
    into.setdefault(file.name, file)
