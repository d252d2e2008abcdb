"""Whose reads are counted, and how what is known of them is written."""

import time
from typing import Any, cast

import pytest
from google.protobuf.duration_pb2 import Duration

from pointsman.v1 import usage_pb2 as pb
from pointsman_server.domain.codec import key_to_bytes, key_to_message
from pointsman_server.domain.identity import Credential, Identity
from pointsman_server.domain.routes import RouteKey
from pointsman_server.reads.read_counts import ReadCounts
from pointsman_server.reads.usage import FLUSH_SECONDS, UsageRecorder
from pointsman_server.rpc.call import begin_call
from pointsman_server.rpc.methods.usage import UsageMethods
from tests.support.call_context import CallContext
from tests.support.fakes import MemoryStore
from tests.support.receipts import usage_methods
from tests.support.usage_log import MemoryUsageLog

KEY = RouteKey("team-a", "payments", "prod", "v1")
OTHER = KEY._replace(version="v2")
REPORT = pb.ReportUsageRequest(
    reads=[
        pb.ReportUsageRequest.Read(key=key_to_message(KEY), count=70),
        pb.ReportUsageRequest.Read(key=key_to_message(OTHER), count=1),
    ]
)


@pytest.fixture(autouse=True)
def _call() -> None:
    call = begin_call(cast("Any", CallContext()))
    call.identity = Identity("key:checkout", Credential.API_KEY)


async def test_reads_of_a_near_cache_are_those_of_its_subject():
    counts = ReadCounts()
    methods = usage_methods(counts)
    counts.read(key_to_bytes(KEY), "key:other")

    assert methods.report_usage(REPORT) == pb.ReportUsageResponse(interval=Duration(seconds=int(FLUSH_SECONDS)))

    before = time.time()
    response = await methods.get_usage(pb.GetUsageRequest(key=key_to_message(KEY)))
    assert {(reader.subject, reader.read_count) for reader in response.readers} == {
        ("key:other", 1),
        ("key:checkout", 70),
    }
    assert all(abs(reader.last_read_time.seconds - before) < 60 for reader in response.readers)
    assert (response.window, response.all_servers) == (Duration(seconds=86_400), True)
    response = await methods.get_usage(pb.GetUsageRequest(key=key_to_message(OTHER)))
    assert [reader.read_count for reader in response.readers] == [1]


async def test_where_reads_are_not_counted_near_caches_are_told_not_to_report():
    counts = ReadCounts(on=False)
    methods = UsageMethods(UsageRecorder(counts, MemoryUsageLog(time.time), window=0), counts, MemoryStore().load)

    assert methods.report_usage(REPORT) == pb.ReportUsageResponse()

    response = await methods.get_usage(pb.GetUsageRequest(key=key_to_message(KEY)))
    assert response == pb.GetUsageResponse(window=Duration())
