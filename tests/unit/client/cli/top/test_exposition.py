"""exposition: the text format of Prometheus, and what it says between two readings."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pointsman.cli.top.exposition import Reading, Span, parsed

TEXT = """\
# HELP grpc_server_started_total Calls started.
# TYPE grpc_server_started_total counter
grpc_server_started_total{grpc_type="unary",grpc_method="Resolve"} 10.0
grpc_server_started_total{grpc_type="unary",grpc_method="Get"} 2 1700000000000
pointsman_ready 1.0
odd{text="a \\"b\\" \\\\ \\n, {c}=d",} +Inf
this is no sample
pointsman_broken{a="b"} many

"""


def span(before: str, after: str, seconds: float = 2.0) -> Span:
    return Span(parsed(before, 1.0), parsed(after, 1.0 + seconds))


def test_reads_samples_with_and_without_labels() -> None:
    reading = parsed(TEXT, 5.0)
    assert reading.total("grpc_server_started_total") == 12
    assert reading.total("grpc_server_started_total", grpc_method="Resolve") == 10
    assert reading.values("grpc_server_started_total", "grpc_method") == ["Get", "Resolve"]
    assert (reading.total("pointsman_ready"), reading.at) == (1, 5.0)


def test_labels_may_have_any_text() -> None:
    [sample] = parsed(TEXT, 0).of("odd")
    assert (sample.labels, sample.value) == ({"text": 'a "b" \\ \n, {c}=d'}, math.inf)


def test_what_is_not_there_is_not_zero() -> None:
    reading = parsed(TEXT, 0)
    assert reading.total("nothing") is None
    assert reading.total("pointsman_ready", worker="1") is None
    assert reading.total("pointsman_broken") is None


@given(st.text())
def test_no_text_breaks_it(text: str) -> None:
    assert isinstance(parsed(text, 0.0), Reading)


def test_a_rate_is_what_grew_in_a_second() -> None:
    both = span('calls{m="a"} 10\ncalls{m="b"} 1', 'calls{m="a"} 14\ncalls{m="b"} 1\ncalls{m="c"} 6')
    assert both.rate("calls") == 5
    assert both.rate("calls", m="a") == 2
    assert both.rate("calls", m="c") == 3
    assert both.rate("calls", m="d") is None


def test_a_restart_counts_from_zero() -> None:
    assert span("calls 100", "calls 8").rate("calls") == 4


def test_no_time_is_no_rate() -> None:
    assert span("calls 1", "calls 2", 0.0).rate("calls") is None


def test_a_share_is_of_what_grew() -> None:
    before = 'lookups{outcome="hit"} 100\nlookups{outcome="miss"} 50'
    assert span(before, 'lookups{outcome="hit"} 109\nlookups{outcome="miss"} 51').share(
        "lookups", "outcome", {"hit", "negative"}
    ) == pytest.approx(0.9)
    assert span(before, before).share("lookups", "outcome", {"hit"}) is None


def test_a_quantile_is_the_bound_of_its_bucket() -> None:
    before = 's_bucket{le="0.001"} 0\ns_bucket{le="0.01"} 0\ns_bucket{le="+Inf"} 0'
    both = span(before, 's_bucket{le="0.001"} 50\ns_bucket{le="0.01"} 98\ns_bucket{le="+Inf"} 100')
    assert [both.quantile(share, "s") for share in (0.5, 0.9, 0.99)] == [0.001, 0.01, math.inf]
    assert span(before, before).quantile(0.5, "s") is None
    assert both.quantile(0.5, "other") is None
