"""Composition: build a server process from the settings, start it, drain it."""
