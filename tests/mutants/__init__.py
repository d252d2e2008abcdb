"""Mutation testing of the rooms whose bugs lose or delay a change: ``make mutants``."""
