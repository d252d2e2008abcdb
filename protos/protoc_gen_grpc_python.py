"""A protoc plugin around the gRPC generator that grpcio-tools has built in, so that ``buf generate`` can call it."""

import sys
import tempfile
from pathlib import Path

from google.protobuf.compiler.plugin_pb2 import CodeGeneratorRequest, CodeGeneratorResponse
from google.protobuf.descriptor_pb2 import FileDescriptorSet
from grpc_tools import protoc


def main() -> None:
    request = CodeGeneratorRequest.FromString(sys.stdin.buffer.read())
    response = CodeGeneratorResponse(supported_features=CodeGeneratorResponse.FEATURE_PROTO3_OPTIONAL)
    with tempfile.TemporaryDirectory() as folder:
        image, out = Path(folder, "image.binpb"), Path(folder, "out")
        out.mkdir()
        image.write_bytes(FileDescriptorSet(file=request.proto_file).SerializeToString())
        if protoc.main(["", f"--descriptor_set_in={image}", f"--grpc_python_out={out}", *request.file_to_generate]):
            response.error = "protoc --grpc_python_out failed"
        for path in sorted(out.rglob("*.py")):
            response.file.add(name=str(path.relative_to(out)), content=path.read_text())
    sys.stdout.buffer.write(response.SerializeToString())


if __name__ == "__main__":
    main()
