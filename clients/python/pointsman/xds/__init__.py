"""xDS: gRPC itself follows the routes, without a call to ours.

::

    pointsman.xds.configure("pointsman.internal:50052")
    channel = grpc.insecure_channel(pointsman.xds.target("team-a/payments/prod"))

docs/xds.md says what such a channel does.
"""

from pointsman.xds.configuration import AlreadyConfigured, configure, credentials
from pointsman.xds.names import name, target

__all__ = ["AlreadyConfigured", "configure", "credentials", "name", "target"]
