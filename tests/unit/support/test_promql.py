"""tests.support.promql: metrics are found, and comparisons and ranges are changed, and nothing else is."""

import pytest

from tests.support.promql import metrics, with_values, with_window


@pytest.mark.parametrize(
    ("expression", "names"),
    [
        ("up == 0", {"up"}),
        ('sum by (le, job) (rate(a_bucket{code!="b",x=~"c|d{2}"}[5m]))', {"a_bucket"}),
        ("a / on (job) group_left (v) b_total", {"a", "b_total"}),
        ("max without (pid) (a) > 1e3 and b offset 5m or absent(c)", {"a", "b", "c"}),
        ("histogram_quantile(0.99, namespace:d:ratio_rate5m) - time() < 14 * 86400", {"namespace:d:ratio_rate5m"}),
        ("sum(rate(a_total[$__rate_interval]))", {"a_total"}),
    ],
)
def test_the_metrics_of_an_expression(expression: str, names: set[str]) -> None:
    assert metrics(expression) == names


@pytest.mark.parametrize(
    ("expression", "changed"),
    [
        ("a == 0", "a == bool 0"),
        ("a == bool 0", "a == bool 0"),
        ('a{x!="1",y=~"<b>"} >= 2 and b < 3', 'a{x!="1",y=~"<b>"} >= bool 2 and b < bool 3'),
        ('label_replace(a, "x", "$1 > 2", "y", "==") != 1', 'label_replace(a, "x", "$1 > 2", "y", "==") != bool 1'),
        ('a{x=~"b{2}>"} > 1', 'a{x=~"b{2}>"} > bool 1'),
        ("rate(a[5m])", "rate(a[5m])"),
    ],
)
def test_comparisons_return_values(expression: str, changed: str) -> None:
    assert with_values(expression) == changed


def test_every_range_becomes_the_window() -> None:
    assert with_window("rate(a[5m]) + rate(b[$__rate_interval])", "6s") == "rate(a[6s]) + rate(b[6s])"
    assert with_window("a offset 1m - a", "6s") == "a offset 6s - a"
