"""The requests: the same in every run, and spread as it says."""

from collections import Counter

from pointsman.v1 import route_service_pb2 as pb
from tests.bench import requests


def test_zipf_draws_the_second_half_as_often_as_the_first_and_the_same_each_time() -> None:
    draws = requests.zipf(1000, 50_000)
    counts = [count for _, count in Counter(draws).most_common()]
    assert draws == requests.zipf(1000, 50_000)
    assert set(draws) <= set(range(1000))
    # Rank 1 has twice the chance of rank 2, and ten times that of rank 10.
    assert 1.8 < counts[0] / counts[1] < 2.2
    assert 8 < counts[0] / counts[9] < 12


def test_the_likeliest_are_not_the_first_of_the_table() -> None:
    likeliest = [number for number, _ in Counter(requests.zipf(10_000, 20_000)).most_common(10)]
    assert likeliest != list(range(10))


def test_only_active_routes_are_asked_for() -> None:
    versions = {request.key.version for request in requests.resolves()}
    assert versions == {"v2", "v3-canary"}


def test_an_exact_request_says_so() -> None:
    assert {request.consistency for request in requests.resolves(exact=True)} == {pb.CONSISTENCY_FULLY_CONSISTENT}
