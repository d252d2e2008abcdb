"""Statistics of near-caches that do not exist."""

from dataclasses import fields

from pointsman.near_cache.statistics.counts import Statistics


class Source:
    """A near-cache of which every figure is its place."""

    def __init__(self, name: str) -> None:
        self.name = name

    def statistics(self) -> Statistics:
        return Statistics(**{field.name: number for number, field in enumerate(fields(Statistics), 1)})
