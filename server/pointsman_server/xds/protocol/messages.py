"""Message classes of the xDS API, from descriptors of our own (``protos/xds_descriptors.py``).

They are in a pool of their own: other packages may bring the same files, in other versions, under the same names.
"""

from importlib.resources import files
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor_pb2 import FileDescriptorSet

POOL = descriptor_pool.DescriptorPool()
FILES = FileDescriptorSet.FromString(files(__package__).joinpath("descriptors.binpb").read_bytes())
for _file in FILES.file:
    POOL.AddSerializedFile(_file.SerializeToString())

_PREFIX = "type.googleapis.com/"


def message(name: str) -> Any:
    """Return the class of a message, by its full name."""
    return message_factory.GetMessageClass(POOL.FindMessageTypeByName(name))


DiscoveryRequest = message("envoy.service.discovery.v3.DiscoveryRequest")
DiscoveryResponse = message("envoy.service.discovery.v3.DiscoveryResponse")
ControlPlane = message("envoy.config.core.v3.ControlPlane")

Listener = message("envoy.config.listener.v3.Listener")
RouteConfiguration = message("envoy.config.route.v3.RouteConfiguration")
VirtualHost = message("envoy.config.route.v3.VirtualHost")
Cluster = message("envoy.config.cluster.v3.Cluster")
ClusterLoadAssignment = message("envoy.config.endpoint.v3.ClusterLoadAssignment")

AggregateCluster = message("envoy.extensions.clusters.aggregate.v3.ClusterConfig")
HttpConnectionManager = message("envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager")
HttpFault = message("envoy.extensions.filters.http.fault.v3.HTTPFault")
HttpProtocolOptions = message("envoy.extensions.upstreams.http.v3.HttpProtocolOptions")
PreviousPriorities = message("envoy.extensions.retry.priority.previous_priorities.v3.PreviousPrioritiesConfig")
Router = message("envoy.extensions.filters.http.router.v3.Router")
UpstreamTlsContext = message("envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext")
SubjectAltNameMatcher = message("envoy.extensions.transport_sockets.tls.v3.SubjectAltNameMatcher")
FractionalPercent = message("envoy.type.v3.FractionalPercent")
