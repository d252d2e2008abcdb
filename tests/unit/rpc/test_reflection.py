"""What reflection finds in proto files, down to what ours do not have yet: extensions and nested declarations."""

from typing import Any

import grpc
import pytest
from google.protobuf import text_format
from google.protobuf.descriptor_pb2 import FileDescriptorProto
from grpc_reflection.v1alpha import reflection_pb2 as pb

from pointsman_server.rpc.reflection import FileIndex, Reflection

BASE = """
name: "base.proto" package: "base"
message_type { name: "Options" extension_range { start: 100 end: 200 } }
"""
MIDDLE = 'name: "middle.proto" dependency: "base.proto"'
TOP = """
name: "top.proto" package: "top" dependency: "middle.proto" dependency: "base.proto"
message_type {
  name: "Outer"
  field { name: "inner" number: 1 type: TYPE_MESSAGE type_name: ".top.Outer.Inner" oneof_index: 0 }
  oneof_decl { name: "choice" }
  enum_type { name: "Color" value { name: "RED" number: 0 } }
  nested_type {
    name: "Inner"
    extension { name: "deep" number: 102 extendee: ".base.Options" type: TYPE_BOOL }
  }
}
enum_type { name: "Size" value { name: "SMALL" number: 0 } }
service { name: "Service" method { name: "Do" input_type: ".top.Outer" output_type: ".top.Outer" } }
extension { name: "flat" number: 101 extendee: ".base.Options" type: TYPE_BOOL }
"""


@pytest.fixture
def index() -> FileIndex:
    return FileIndex([text_format.Parse(text, FileDescriptorProto()) for text in (BASE, MIDDLE, TOP)])


def names(files: list[bytes] | None) -> list[str]:
    return [FileDescriptorProto.FromString(file).name for file in files or ()]


@pytest.mark.parametrize(
    "symbol",
    [
        "top.Outer",
        "top.Outer.inner",
        "top.Outer.choice",
        "top.Outer.Color",
        "top.Outer.RED",
        "top.Outer.Inner",
        "top.Outer.Inner.deep",
        "top.Size",
        "top.SMALL",
        "top.Service",
        "top.Service.Do",
        "top.flat",
    ],
)
def test_every_kind_of_symbol_is_found(index: FileIndex, symbol: str) -> None:
    # The file first, then each of its imports once.
    assert names(index.of_symbol(symbol)) == ["top.proto", "middle.proto", "base.proto"]


@pytest.mark.parametrize("symbol", ["", "top", "Outer", ".top.Outer", "top.Outer.Color.RED", "top.Size.SMALL"])
def test_what_is_no_full_name_is_not_found(index: FileIndex, symbol: str) -> None:
    assert index.of_symbol(symbol) is None


@pytest.mark.parametrize("number", [101, 102])
def test_extensions_are_found_by_number(index: FileIndex, number: int) -> None:
    assert names(index.of_extension("base.Options", number))[0] == "top.proto"
    assert index.of_extension("base.Options", 103) is None


def test_a_message_knows_its_extensions(index: FileIndex) -> None:
    assert index.extension_numbers("base.Options") == [101, 102]
    assert index.extension_numbers("top.Outer") == []
    assert index.extension_numbers("top.Nothing") is None


def test_an_answer_repeats_the_question() -> None:
    request = pb.ServerReflectionRequest(host="here", file_containing_symbol="no.such")
    answer: Any = Reflection().answer(request)

    assert (answer.valid_host, answer.original_request) == ("here", request)
    assert answer.error_response.error_code == grpc.StatusCode.NOT_FOUND.value[0]
