"""The encoding of resources, and their versions."""

from hypothesis import given, settings
from hypothesis import strategies as st

from pointsman_server.xds.protocol.messages import Cluster, DiscoveryResponse
from pointsman_server.xds.protocol.types import ResourceType
from pointsman_server.xds.resource import encode
from tests.support.xds_messages import content


@given(st.binary(max_size=300) | st.integers(0, 40_000).map(bytes))
@settings(deadline=None)
def test_a_body_is_a_field_of_a_response(value: bytes) -> None:
    resource = encode(ResourceType.CDS, "a", value)

    (packed,) = DiscoveryResponse.FromString(resource.body).resources
    assert (packed.type_url, packed.value) == (ResourceType.CDS, value)


def test_a_message_and_its_bytes_are_the_same_resource() -> None:
    message = Cluster(name="a")

    assert encode(ResourceType.CDS, "a", message) == encode(ResourceType.CDS, "a", message.SerializeToString())
    assert content(encode(ResourceType.CDS, "a", message)) == message


def test_versions_are_of_type_name_and_content() -> None:
    versions = {
        encode(kind, name, value).version
        for kind in (ResourceType.CDS, ResourceType.EDS)
        for name in ("a", "b")
        for value in (b"", b"c")
    }

    assert len(versions) == 8


def test_versions_are_the_same_in_every_process() -> None:
    assert f"{encode(ResourceType.CDS, 'a', b'b').version:016x}" == "bddb185c292598d3"
