"""rpc.descriptors: proto files with all that they import."""

from google.rpc import error_details_pb2

from pointsman.v1 import route_service_pb2
from pointsman_server.rpc.descriptors import with_imports


def test_each_file_comes_once_and_after_those_that_it_imports() -> None:
    roots = (route_service_pb2.DESCRIPTOR, error_details_pb2.DESCRIPTOR, route_service_pb2.DESCRIPTOR)

    files = with_imports(roots)

    names = [file.name for file in files]
    assert {root.name for root in roots} <= set(names)
    assert len(names) == len(set(names))
    for number, file in enumerate(files):
        assert set(file.dependency) <= set(names[:number]), file.name
