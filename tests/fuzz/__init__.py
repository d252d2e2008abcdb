"""Fuzzes every parser of foreign input: ``harness`` says how, ``targets`` what."""
