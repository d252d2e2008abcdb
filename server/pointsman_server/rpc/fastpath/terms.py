"""The fields of Resolve and BatchResolve besides the keys: consistency, ``min_revision`` and its epoch."""

from google.protobuf.message import DecodeError

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.runtime.bounded_dict import put_bounded

MAX_REMEMBERED = 10_000
MAX_BYTES = 128
# As the proto bounds it.
MAX_EPOCH = 36

SUPPORTED = (pb.CONSISTENCY_UNSPECIFIED, pb.CONSISTENCY_MINIMIZE_LATENCY, pb.CONSISTENCY_FULLY_CONSISTENT)


class Terms:
    """The decoded fields besides the keys: both requests have the same ones.

    ``from_store``: whether only the store may answer. ``supported``: whether the fast path serves such a request; it
    leaves invalid ones to the interceptor chain, and a fully consistent read that also has a ``min_revision``.
    """

    __slots__ = ("epoch", "from_store", "min_revision", "supported")

    def __init__(self, encoded: bytes) -> None:
        request = pb.ResolveRequest.FromString(encoded)
        self.min_revision = request.min_revision
        self.epoch = request.epoch
        self.from_store = request.consistency == pb.CONSISTENCY_FULLY_CONSISTENT
        self.supported = (
            request.consistency in SUPPORTED
            and not request.HasField("key")
            and request.min_revision >= 0
            and len(request.epoch) <= MAX_EPOCH
            and not (self.from_store and request.min_revision)
        )


class TermsTable:
    """Decodes terms, and caches the results by their bytes: nearly all requests have one of few."""

    def __init__(self) -> None:
        self._known: dict[bytes, Terms] = {b"": Terms(b"")}
        self.get = self._known.get

    def decode(self, encoded: bytes) -> Terms:
        """Decode terms that ``get`` does not return."""
        try:
            terms = Terms(encoded) if len(encoded) <= MAX_BYTES else UNSUPPORTED
        except DecodeError:
            return UNSUPPORTED
        if terms is not UNSUPPORTED:
            put_bounded(self._known, encoded, terms, MAX_REMEMBERED)
        return terms


UNSUPPORTED = Terms(pb.ResolveRequest(min_revision=-1).SerializeToString())
