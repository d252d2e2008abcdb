"""Build the protobuf image that buf checks and generates from, without a schema registry.

No Python package ships ``buf/validate/validate.proto``, but protovalidate ships its descriptor. So the image is
made by protoc from our sources, the sources of googleapis-common-protos, and that descriptor.

``image.binpb`` is for ``buf lint`` and ``buf breaking``. ``stubs.binpb`` is for ``buf generate``: the same without
the import of ``validate.proto``. The rules stay in the options, where protovalidate finds them by field number, and
the client package needs no copy of ``validate_pb2`` that could clash with somebody else's. ``examples.binpb``, for
``clients/examples``, is that with the details of errors and the options that the generators of Go and Java need.
"""

import subprocess
import sys
from pathlib import Path

from google.protobuf.descriptor_pb2 import FileDescriptorProto, FileDescriptorSet
from google.rpc import error_details_pb2, status_pb2
from protovalidate._gen.buf.validate import validate_pb

ROOT = Path(__file__).resolve().parent.parent
PROTOS = ROOT / "protos"
OUT = ROOT / ".cache" / "protos"
PROTOC = [str(ROOT / ".cache" / "protoc" / "bin" / "python"), "-m", "grpc_tools.protoc"]
VALIDATE = "buf/validate/validate.proto"


def main(sources: Path, image: Path) -> None:
    """Compile every ``.proto`` under ``sources`` to ``image`` and to ``stubs.binpb`` beside it."""
    image.parent.mkdir(parents=True, exist_ok=True)
    compile_image(sources, image)
    stubs = FileDescriptorSet.FromString(image.read_bytes())
    stubs = without_validate(stubs)
    (image.parent / "stubs.binpb").write_bytes(stubs.SerializeToString())
    name_packages(stubs)
    stubs.file.append(FileDescriptorProto.FromString(error_details_pb2.DESCRIPTOR.serialized_pb))
    (image.parent / "examples.binpb").write_bytes(stubs.SerializeToString())


def compile_image(sources: Path, image: Path) -> None:
    """Run protoc with the rules of protovalidate at hand."""
    validate = FileDescriptorProto.FromString(validate_pb.desc().proto.to_binary())
    rules = image.with_name("validate.binpb")
    rules.write_bytes(FileDescriptorSet(file=[*well_known(), validate]).SerializeToString())
    names = sorted(str(path.relative_to(sources)) for path in sources.rglob("*.proto"))
    command = [
        *PROTOC,
        f"--descriptor_set_in={rules}",
        f"--proto_path={sources}",
        f"--proto_path={Path(status_pb2.__file__).parents[2]}",
        "--include_imports",
        "--include_source_info",
        f"--descriptor_set_out={image}",
        *names,
    ]
    subprocess.run(command, check=True, cwd=ROOT)


def well_known() -> list[FileDescriptorProto]:
    """Return the descriptors that ``validate.proto`` imports."""
    from google.protobuf import any_pb2, descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2

    modules = (any_pb2, descriptor_pb2, duration_pb2, field_mask_pb2, timestamp_pb2)
    return [FileDescriptorProto.FromString(module.DESCRIPTOR.serialized_pb) for module in modules]


def without_validate(image: FileDescriptorSet) -> FileDescriptorSet:
    """Drop ``validate.proto`` and every import of it."""
    for file in image.file:
        kept = [name for name in file.dependency if name != VALIDATE]
        del file.dependency[:]
        file.dependency.extend(kept)
    return FileDescriptorSet(file=[file for file in image.file if file.name != VALIDATE])


def name_packages(image: FileDescriptorSet) -> None:
    """Say which package of Go and of Java our files are generated into."""
    for file in image.file:
        if file.package == "pointsman.v1":
            file.options.go_package = "example.com/pointsman/gen/pointsman/v1;pointsmanv1"
            file.options.java_package = "com.example.pointsman.v1"
            file.options.java_multiple_files = True
            # As buf names it in its managed mode. By default it would be Selection of selection.proto, which a message
            # of another file is called.
            stem = Path(file.name).stem.title().replace("_", "")
            file.options.java_outer_classname = f"{stem}Proto"


if __name__ == "__main__":
    arguments = [Path(argument) for argument in sys.argv[1:]]
    main(*arguments or (PROTOS, OUT / "image.binpb"))
