"""Bounded dicts, which drop the key that was put in first."""

from typing import TypeVar

K = TypeVar("K")
V = TypeVar("V")


def put_bounded(table: dict[K, V], key: K, value: V, max_size: int) -> None:
    """Set ``key`` to ``value``; the key that was put in first is dropped when there are ``max_size`` others."""
    if len(table) >= max_size and key not in table:
        del table[next(iter(table))]
    table[key] = value
