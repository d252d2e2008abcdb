"""The fields of reads besides the keys: consistency, ``min_revision`` and its epoch."""

from collections.abc import Callable

from google.protobuf.empty_pb2 import Empty
from google.protobuf.message import DecodeError
from google.protobuf.unknown_fields import UnknownFieldSet

from pointsman.v1 import route_service_pb2 as pb
from pointsman_server.runtime.bounded_dict import put_bounded

MAX_REMEMBERED = 10_000
MAX_BYTES = 128
# As the proto bounds it.
MAX_EPOCH = 36

SUPPORTED = (pb.CONSISTENCY_UNSPECIFIED, pb.CONSISTENCY_MINIMIZE_LATENCY, pb.CONSISTENCY_FULLY_CONSISTENT)


class Terms:
    """The decoded fields besides the keys: Resolve, BatchResolve and BatchSelect have the same ones.

    ``from_store``: whether only the store may answer. ``supported``: whether the fast path serves such a request; it
    leaves invalid ones to the interceptor chain, and a fully consistent read that also has a ``min_revision``.
    """

    __slots__ = ("epoch", "from_store", "min_revision", "supported")

    def __init__(self, encoded: bytes) -> None:
        request = self._decode(encoded)
        self.min_revision = request.min_revision
        self.epoch = request.epoch
        self.from_store = request.consistency == pb.CONSISTENCY_FULLY_CONSISTENT
        self.supported = (
            request.consistency in SUPPORTED
            and not self._has_other_fields(encoded)
            and request.min_revision >= 0
            and len(request.epoch) <= MAX_EPOCH
            and not (self.from_store and request.min_revision)
        )

    def _decode(self, encoded: bytes) -> pb.ResolveRequest | pb.SelectRequest:
        return pb.ResolveRequest.FromString(encoded)

    def _has_other_fields(self, encoded: bytes) -> bool:
        return pb.ResolveRequest.FromString(encoded).HasField("key")


class SelectTerms(Terms):
    """Those of a Select, which have other numbers."""

    __slots__ = ()

    def _decode(self, encoded: bytes) -> pb.SelectRequest:
        return pb.SelectRequest.FromString(encoded)

    def _has_other_fields(self, encoded: bytes) -> bool:
        fields = UnknownFieldSet(Empty.FromString(encoded))
        return any(fields[place].field_number not in SELECT_FIELDS for place in range(len(fields)))


SELECT_FIELDS = {pb.SelectRequest.DESCRIPTOR.fields_by_name[n].number for n in ("min_revision", "consistency", "epoch")}


class TermsTable:
    """Decodes terms, and caches the results by their bytes: nearly all requests have one of few."""

    def __init__(self, decode: Callable[[bytes], Terms] = Terms) -> None:
        self._decode = decode
        self._known: dict[bytes, Terms] = {b"": decode(b"")}
        self.get = self._known.get

    def decode(self, encoded: bytes) -> Terms:
        """Decode terms that ``get`` does not return."""
        try:
            terms = self._decode(encoded) if len(encoded) <= MAX_BYTES else UNSUPPORTED
        except DecodeError:
            return UNSUPPORTED
        if terms is not UNSUPPORTED:
            put_bounded(self._known, encoded, terms, MAX_REMEMBERED)
        return terms


UNSUPPORTED = Terms(pb.ResolveRequest(min_revision=-1).SerializeToString())
