"""Proto files and all that they import, from the descriptors of the running code."""

from collections.abc import Iterable

from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import FileDescriptorProto


def with_imports(roots: Iterable[FileDescriptor]) -> list[FileDescriptorProto]:
    """Return the files, each once and after those that it imports."""
    found: dict[str, FileDescriptor] = {}
    _collect(roots, found)
    files: list[FileDescriptorProto] = []
    for descriptor in found.values():
        files.append(FileDescriptorProto())
        descriptor.CopyToProto(files[-1])
    return files


def _collect(descriptors: Iterable[FileDescriptor], found: dict[str, FileDescriptor]) -> None:
    for descriptor in descriptors:
        if descriptor.name not in found:
            _collect(descriptor.dependencies, found)
            found[descriptor.name] = descriptor
