from prometheus_client import CollectorRegistry, generate_latest

from pointsman.near_cache.statistics.prometheus import NearCacheCollector
from tests.support.statistics import Source


def test_what_is_scraped() -> None:
    registry = CollectorRegistry()
    collector = NearCacheCollector(Source("one"), Source("two"), registry=registry)
    text = generate_latest(registry).decode()
    assert 'pointsman_near_cache_routes{name="one"} 1.0' in text
    assert 'pointsman_near_cache_age_seconds{name="two"} 3.0' in text
    assert 'pointsman_near_cache_reads_total{name="one"} 6.0' in text
    collector.close()
    assert generate_latest(registry) == b""
