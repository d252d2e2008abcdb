"""Server reflection (grpc.reflection) under its names v1 and v1alpha: grpcurl and other tools read services by it.

grpcio's own servicer has only v1alpha, and its symbol look-up finds neither methods nor fields.
"""

from collections.abc import AsyncIterable, AsyncIterator, Iterable, Iterator, Sequence
from typing import Any

import grpc
from google.protobuf.descriptor import FileDescriptor
from google.protobuf.descriptor_pb2 import (
    DescriptorProto,
    EnumDescriptorProto,
    FieldDescriptorProto,
    FileDescriptorProto,
)
from google.rpc import error_details_pb2
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2 as pb

from pointsman.v1 import error_reason_pb2, route_service_pb2
from pointsman_server.rpc import HEALTH, REFLECTION, SERVICE
from pointsman_server.rpc.descriptors import with_imports
from pointsman_server.rpc.transport.registration import Behaviour, register


class FileIndex:
    """Proto files and what they import, by file name, symbol and extension."""

    def __init__(self, files: Iterable[FileDescriptorProto]) -> None:
        self._files = {file.name: file for file in files}
        self._symbols = {symbol: file.name for file in self._files.values() for symbol in _symbols(file)}
        self._extensions = {
            (field.extendee.lstrip("."), field.number): file.name
            for file in self._files.values()
            for field in _extensions(file)
        }

    def named(self, name: str) -> list[bytes] | None:
        """Return the file of that name and then all that it imports, encoded; None where there is none."""
        if name not in self._files:
            return None
        names = [name]
        for each in names:
            names += [imported for imported in self._files[each].dependency if imported not in names]
        return [self._files[each].SerializeToString() for each in names]

    def of_symbol(self, symbol: str) -> list[bytes] | None:
        """Return what ``named`` returns for the file that declares ``symbol``, a full name of any kind."""
        return self.named(self._symbols.get(symbol, ""))

    def of_extension(self, message: str, number: int) -> list[bytes] | None:
        """Return what ``named`` returns for the file that extends ``message`` by field ``number``."""
        return self.named(self._extensions.get((message, number), ""))

    def extension_numbers(self, message: str) -> list[int] | None:
        """Return the numbers by which ``message`` is extended; None where there is no such message."""
        if message not in self._symbols:
            return None
        return sorted(number for extended, number in self._extensions if extended == message)


class Reflection:
    """The servicer of both names: their messages are the same on the wire.

    ``services`` are those of the port, beside health and this one, and ``roots`` the files that declare them; ``files``
    are further ones, with all that they import, which need not be in the default pool.
    """

    def __init__(
        self,
        services: Sequence[str] = (SERVICE,),
        roots: Sequence[FileDescriptor] = (route_service_pb2.DESCRIPTOR,),
        files: Iterable[FileDescriptorProto] = (),
    ) -> None:
        self._services = (*services, HEALTH, *REFLECTION)
        # No service names the details of its errors, but clients look them up.
        errors = (error_details_pb2.DESCRIPTOR, error_reason_pb2.DESCRIPTOR)
        always = (health_pb2.DESCRIPTOR, pb.DESCRIPTOR, *errors)
        self._index = FileIndex([*files, *with_imports((*roots, *always)), _version_one()])

    def register(self, server: Any) -> None:
        """Add both services to a gRPC server."""
        parse, encode = pb.ServerReflectionRequest.FromString, pb.ServerReflectionResponse.SerializeToString
        for service in REFLECTION:
            register(server, service, {"ServerReflectionInfo": Behaviour(self.info, parse, encode, streaming=True)})

    async def info(
        self, requests: AsyncIterable[pb.ServerReflectionRequest], _context: Any
    ) -> AsyncIterator[pb.ServerReflectionResponse]:
        """Answer each request by a response."""
        async for request in requests:
            yield self.answer(request)

    def answer(self, request: pb.ServerReflectionRequest) -> pb.ServerReflectionResponse:
        """Answer one request; what there is not is an error in the response, and the stream goes on."""
        kind = request.WhichOneof("message_request")
        response = pb.ServerReflectionResponse(valid_host=request.host, original_request=request)
        if kind is None:
            return _refuse(response, grpc.StatusCode.INVALID_ARGUMENT, "a request needs one of the oneof's fields")
        if kind == "list_services":
            response.list_services_response.service.extend(pb.ServiceResponse(name=name) for name in self._services)
            return response
        if kind == "all_extension_numbers_of_type":
            numbers = self._index.extension_numbers(request.all_extension_numbers_of_type)
            if numbers is not None:
                answer = response.all_extension_numbers_response
                answer.base_type_name = request.all_extension_numbers_of_type
                answer.extension_number.extend(numbers)
                return response
        elif files := self._files(request, kind):
            response.file_descriptor_response.file_descriptor_proto.extend(files)
            return response
        return _refuse(response, grpc.StatusCode.NOT_FOUND, "not found")

    def _files(self, request: pb.ServerReflectionRequest, kind: str) -> list[bytes] | None:
        if kind == "file_by_filename":
            return self._index.named(request.file_by_filename)
        if kind == "file_containing_symbol":
            return self._index.of_symbol(request.file_containing_symbol)
        extension = request.file_containing_extension
        return self._index.of_extension(extension.containing_type, extension.extension_number)


def _refuse(response: pb.ServerReflectionResponse, code: grpc.StatusCode, message: str) -> pb.ServerReflectionResponse:
    response.error_response.error_code = code.value[0]
    response.error_response.error_message = message
    return response


def _version_one() -> FileDescriptorProto:
    """Make the file of v1 from that of v1alpha, which differs by its names alone."""
    file = FileDescriptorProto()
    pb.DESCRIPTOR.CopyToProto(file)
    file.name, file.package = _renamed(file.name), _renamed(file.package)
    for field in (field for message in file.message_type for field in message.field):
        field.type_name = _renamed(field.type_name)
    for method in (method for service in file.service for method in service.method):
        method.input_type, method.output_type = _renamed(method.input_type), _renamed(method.output_type)
    file.ClearField("options")
    return file


def _renamed(name: str) -> str:
    return name.replace("v1alpha", "v1")


def _symbols(file: FileDescriptorProto) -> Iterator[str]:
    """Name everything that a file declares."""
    scope = f"{file.package}." if file.package else ""
    for message in file.message_type:
        yield from _symbols_of_message(scope, message)
    for enum in file.enum_type:
        yield from _symbols_of_enum(scope, enum)
    yield from (scope + extension.name for extension in file.extension)
    for service in file.service:
        yield scope + service.name
        yield from (f"{scope}{service.name}.{method.name}" for method in service.method)


def _symbols_of_message(scope: str, message: DescriptorProto) -> Iterator[str]:
    yield scope + message.name
    inner = f"{scope}{message.name}."
    for field in (*message.field, *message.extension):
        yield inner + field.name
    yield from (inner + oneof.name for oneof in message.oneof_decl)
    for enum in message.enum_type:
        yield from _symbols_of_enum(inner, enum)
    for nested in message.nested_type:
        yield from _symbols_of_message(inner, nested)


def _symbols_of_enum(scope: str, enum: EnumDescriptorProto) -> Iterator[str]:
    yield scope + enum.name
    # Values are in the scope of their enum, not within it.
    yield from (scope + value.name for value in enum.value)


def _extensions(file: FileDescriptorProto) -> Iterator[FieldDescriptorProto]:
    yield from file.extension
    messages = list(file.message_type)
    for message in messages:
        yield from message.extension
        messages += message.nested_type
