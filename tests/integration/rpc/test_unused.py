"""Deactivate and Delete with ``if_unused_for``: refused while a route is read, as far as reads are counted."""

import re
import uuid
from collections.abc import Iterator

import grpc
import pytest
import redis
from google.protobuf.duration_pb2 import Duration

from pointsman.v1 import route_service_pb2 as pb
from pointsman.v1 import usage_pb2
from pointsman.v1.route_pb2 import RouteKey
from pointsman.v1.route_service_pb2_grpc import RouteServiceStub
from tests.support.engines import fresh_database
from tests.support.refusals import refused
from tests.support.servers import serving, settings

URL = "https://payments.internal:8443"
MINUTE = Duration(seconds=60)

both = pytest.mark.parametrize("method", ["Deactivate", "Delete"])


def request(method: str, key, **fields):
    kind = {"Deactivate": pb.DeactivateRequest, "Delete": pb.DeleteRequest}[method]
    return kind(key=key, **{"if_unused_for": MINUTE} | fields)


@both
def test_a_route_that_is_read_is_refused_with_its_readers(grpc_stub, key, method):
    created = grpc_stub.Create(pb.CreateRequest(key=key, url=URL)).route
    grpc_stub.Resolve(pb.ResolveRequest(key=key))

    refusal = refused(getattr(grpc_stub, method), request(method, key))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ROUTE_IN_USE")
    assert refusal.metadata["key"] == f"{key.tenant}/payments/prod/v1"
    assert re.fullmatch(r"anonymous \d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ", refusal.metadata["readers"])
    assert refusal.metadata["readers"] in refusal.message
    assert grpc_stub.Get(pb.GetRequest(key=key)).route == created


@both
def test_a_read_of_a_near_cache_counts(grpc_stub, key, method):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))
    read = usage_pb2.ReportUsageRequest.Read(key=key, count=3)
    grpc_stub.ReportUsage(usage_pb2.ReportUsageRequest(reads=[read]))

    assert refused(getattr(grpc_stub, method), request(method, key)).reason == "ROUTE_IN_USE"


@both
def test_a_route_that_nobody_reads_goes(grpc_stub, key, method):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))

    getattr(grpc_stub, method)(request(method, key))

    assert refused(grpc_stub.Resolve, pb.ResolveRequest(key=key)).code is grpc.StatusCode.NOT_FOUND


@both
def test_reads_before_that_time_do_not_count(grpc_server, grpc_stub, key, method):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))
    grpc_stub.Resolve(pb.ResolveRequest(key=key))
    usage = grpc_server.app.usage.recorder
    grpc_server.run(usage.flush())
    assert refused(getattr(grpc_stub, method), request(method, key)).reason == "ROUTE_IN_USE"

    _age(grpc_server.app.settings.redis_url.get_secret_value(), f"pointsman:usage:{key.tenant}/payments/prod/v1", 61)

    getattr(grpc_stub, method)(request(method, key))


@both
def test_a_retry_of_what_was_done_is_answered_the_same_though_it_was_read_since(grpc_stub, key, method):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))
    again = request(method, key, request_id=str(uuid.uuid4()))
    first = getattr(grpc_stub, method)(again)
    read = usage_pb2.ReportUsageRequest.Read(key=key, count=1)
    grpc_stub.ReportUsage(usage_pb2.ReportUsageRequest(reads=[read]))

    assert getattr(grpc_stub, method)(again) == first


@both
@pytest.mark.parametrize("duration", [Duration(), Duration(seconds=19, nanos=999_999_999), Duration(seconds=-60)])
def test_a_time_in_which_reads_may_not_be_known_yet_is_malformed(grpc_stub, key, method, duration):
    refusal = refused(getattr(grpc_stub, method), request(method, key, if_unused_for=duration))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FIELD")
    assert list(refusal.fields) == ["if_unused_for"]


@both
def test_a_time_longer_than_reads_are_counted_is_refused(grpc_stub, key, method):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))
    longest = Duration(seconds=315_576_000_000)

    refusal = refused(getattr(grpc_stub, method), request(method, key, if_unused_for=longest))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "USAGE_NOT_COUNTED")
    assert refusal.metadata["window"] == "86400s"


def test_in_a_commit_each_route_in_use_is_named_by_its_index_and_nothing_is_done(grpc_stub, key):
    keys = [RouteKey(tenant=key.tenant, service=key.service, env=key.env, version=f"v{n}") for n in range(4)]
    for each in keys:
        grpc_stub.Create(pb.CreateRequest(key=each, url=URL))
    for each in keys[1::2]:
        grpc_stub.Resolve(pb.ResolveRequest(key=each))
    mutations = [
        pb.Mutation(deactivate=request("Deactivate", keys[0])),
        pb.Mutation(deactivate=request("Deactivate", keys[1])),
        pb.Mutation(delete=request("Delete", keys[2])),
        pb.Mutation(delete=request("Delete", keys[3])),
    ]

    for dry_run in (True, False):
        refusal = refused(grpc_stub.Commit, pb.CommitRequest(mutations=mutations, dry_run=dry_run))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ROUTE_IN_USE")
        assert (refusal.metadata["index"], refusal.metadata["key"]) == ("1", f"{key.tenant}/payments/prod/v1")
        assert refusal.metadata["readers"].startswith("anonymous ")
        assert list(refusal.fields) == ["mutations[1]", "mutations[3]"]
    assert all(grpc_stub.Get(pb.GetRequest(key=each)).route.active for each in keys)

    grpc_stub.Commit(pb.CommitRequest(mutations=mutations[::2]))


@both
def test_after_redis_has_lost_what_it_had_a_route_may_have_been_read(grpc_server, grpc_stub, key, method):
    grpc_stub.Create(pb.CreateRequest(key=key, url=URL))
    with redis.Redis.from_url(grpc_server.app.settings.redis_url.get_secret_value()) as client:
        client.flushdb()
    grpc_server.run(grpc_server.app.usage.recorder.flush())

    refusal = refused(getattr(grpc_stub, method), request(method, key))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "USAGE_UNAVAILABLE")
    assert int(refusal.metadata["known"].removesuffix("s")) < 60


@pytest.fixture(scope="module", params=["grpcio", "envoy"])
def without_redis(request: pytest.FixtureRequest, engines, template_database: str) -> Iterator[RouteServiceStub]:
    """A server whose Redis cannot be reached."""
    with fresh_database(template_database) as database_url:
        chosen = settings(transport=request.param, database_url=database_url, redis_url="redis://127.0.0.1:1/0")
        with serving(chosen) as server, grpc.insecure_channel(server.address) as channel:
            yield RouteServiceStub(channel)


@both
def test_without_redis_nobody_can_tell(without_redis, key, method):
    without_redis.Create(pb.CreateRequest(key=key, url=URL))

    refusal = refused(getattr(without_redis, method), request(method, key))

    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "USAGE_UNAVAILABLE")
    assert refusal.retry_seconds == 1.0
    assert without_redis.Get(pb.GetRequest(key=key)).route.active


def _age(url: str, name: str, seconds: int) -> None:
    """Set the time of all last reads of a route back."""
    with redis.Redis.from_url(url) as client:
        for subject, value in client.hgetall(name).items():
            *counts, last = value.split()
            client.hset(name, subject, b" ".join([*counts, str(int(last) - seconds * 1000).encode()]))
