"""The types of resources that are served."""

from pointsman_server.xds.protocol.messages import POOL
from pointsman_server.xds.protocol.types import BY_URL, ResourceType


def test_every_type_is_a_message() -> None:
    for url, kind in BY_URL.items():
        prefix, _, name = url.partition("/")
        assert prefix == "type.googleapis.com"
        assert POOL.FindMessageTypeByName(name).full_name == name
        assert kind == url


def test_what_is_missing_in_a_response_is_removed_for_listeners_and_clusters_alone() -> None:
    assert {kind for kind in ResourceType if kind.is_complete} == {ResourceType.LDS, ResourceType.CDS}
