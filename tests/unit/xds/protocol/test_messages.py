"""The message classes, from descriptors of our own."""

import subprocess
import sys

from google.protobuf import any_pb2, descriptor_pool
from google.protobuf.descriptor_pb2 import DescriptorProto

from pointsman_server.xds.protocol import messages


def test_every_class_has_its_descriptor_from_the_pool_of_ours() -> None:
    classes = [each for each in vars(messages).values() if isinstance(each, type) and hasattr(each, "DESCRIPTOR")]

    ours = [each for each in classes if each.DESCRIPTOR.full_name.startswith("envoy.")]
    assert len(ours) >= 14
    for each in ours:
        assert messages.POOL.FindMessageTypeByName(each.DESCRIPTOR.full_name) is each.DESCRIPTOR


def test_the_pool_of_others_is_left_alone() -> None:
    # In a process of its own: another test may import the same files from another package.
    script = """
from google.protobuf import descriptor_pool
import pointsman_server.xds.protocol.messages
try:
    descriptor_pool.Default().FindFileByName("envoy/config/cluster/v3/cluster.proto")
except KeyError:
    print("not there")
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert printed == "not there\n"


def test_messages_of_both_pools_are_the_same_on_the_wire() -> None:
    ours = messages.message("google.protobuf.Any")(type_url="a", value=b"b")

    assert any_pb2.Any.FromString(ours.SerializeToString()) == any_pb2.Any(type_url="a", value=b"b")
    assert ours.DESCRIPTOR is not descriptor_pool.Default().FindMessageTypeByName("google.protobuf.Any")


def test_maps_are_maps() -> None:
    host = messages.VirtualHost()
    host.typed_per_filter_config["a"].Pack(messages.HttpFault())

    assert (
        messages.VirtualHost.FromString(host.SerializeToString())
        .typed_per_filter_config["a"]
        .type_url.endswith("/envoy.extensions.filters.http.fault.v3.HTTPFault")
    )


def test_every_field_says_its_name_in_json_which_tools_take_from_here() -> None:
    waiting: list[DescriptorProto] = [message for file in messages.FILES.file for message in file.message_type]
    assert messages.FILES.file
    for message in waiting:
        waiting += message.nested_type
        for field in message.field:
            words = field.name.split("_")
            assert field.json_name == words[0] + "".join(word[:1].upper() + word[1:] for word in words[1:])
