"""Mechanisms without knowledge of routes: batching, back-off, limits, threads."""
