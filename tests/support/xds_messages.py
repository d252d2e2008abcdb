"""Messages of xDS as plain dicts, which are easy to compare and to read."""

from typing import Any

from google.protobuf import json_format

from pointsman_server.xds.protocol.messages import POOL
from pointsman_server.xds.protocol.messages import message as message_class
from pointsman_server.xds.resource import Resource

_TYPE = "@type"


def plain(message: Any) -> Any:
    """Return a message as a dict by the field names of the API; of packed messages the short name of the type."""
    return _shortened(json_format.MessageToDict(message, preserving_proto_field_name=True, descriptor_pool=POOL))


def content(resource: Resource) -> Any:
    """Parse what a resource carries."""
    response = message_class("envoy.service.discovery.v3.DiscoveryResponse").FromString(resource.body)
    (packed,) = response.resources
    return message_class(packed.type_url.partition("/")[2]).FromString(packed.value)


def _shortened(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: each.rpartition(".")[2] if key == _TYPE else _shortened(each) for key, each in value.items()}
    return [_shortened(each) for each in value] if isinstance(value, list) else value
