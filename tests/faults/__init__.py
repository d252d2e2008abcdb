"""Faults against promises: three servers and their engines as processes, mixed load, injections, and a checker.

``python -m tests.faults --seconds 150 --seed 7``. ``docs/promises.md`` explains what is checked, and shows a result.
"""
