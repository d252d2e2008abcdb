from dataclasses import replace
from datetime import datetime, timedelta, timezone

from pointsman_server.adapters.kafka.decoder import change_from_bytes
from pointsman_server.adapters.kafka.publisher import headers, record
from pointsman_server.domain.routes import ChangeKind
from tests.support.changes import make_change, make_traffic_change

TRACE = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


def test_headers_are_the_attributes_of_a_cloud_event() -> None:
    assert headers(make_change(7, kind=ChangeKind.DELETED, trace=TRACE)) == [
        ("content-type", "application/protobuf"),
        ("ce_specversion", "1.0"),
        ("ce_id", "event-7"),
        ("ce_source", "/pointsman/e1"),
        ("ce_type", "pointsman.v1.RouteChange.DELETED"),
        ("ce_subject", "acme/pay/prod/v1"),
        ("ce_time", "2026-01-01T00:00:07Z"),
        ("ce_traceparent", TRACE),
    ]


def test_what_vendors_add_to_the_trace_goes_with_it() -> None:
    change = replace(make_change(7, trace=TRACE), tracestate="vendor=opaque")
    assert dict(headers(change))["ce_tracestate"] == "vendor=opaque"
    assert "ce_tracestate" not in dict(headers(replace(change, traceparent="")))


def test_without_a_trace_there_is_no_header_for_it() -> None:
    assert "ce_traceparent" not in dict(headers(make_change(7)))


def test_the_time_is_in_utc() -> None:
    east = datetime(2026, 1, 1, 2, 0, 0, 5000, tzinfo=timezone(timedelta(hours=2)))
    assert dict(headers(replace(make_change(7), occur_time=east)))["ce_time"] == "2026-01-01T00:00:00.005000Z"


def test_a_record_is_keyed_by_its_route_and_decodes_to_the_change() -> None:
    sent = record(make_change(7))
    assert sent.key == b"acme/pay/prod/v1"
    assert change_from_bytes(sent.value) == make_change(7)
    assert sent.headers == headers(make_change(7))


def test_a_record_of_traffic_is_keyed_by_its_family() -> None:
    sent = record(make_traffic_change(7))
    assert sent.key == b"acme/pay/prod"
    assert change_from_bytes(sent.value) == make_traffic_change(7)
    assert dict(sent.headers)["ce_subject"] == "acme/pay/prod"
    assert dict(sent.headers)["ce_type"] == "pointsman.v1.RouteChange.TRAFFIC_SET"
