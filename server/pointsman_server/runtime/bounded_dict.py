"""A memory that is bounded by forgetting what was remembered first."""

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def remember(table: dict[K, V], key: K, value: V, most: int) -> None:
    """Remember ``value``; the one that was put in first goes when there are ``most``."""
    if len(table) >= most and key not in table:
        del table[next(iter(table))]
    table[key] = value
