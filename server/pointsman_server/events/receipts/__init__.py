"""Receipts: which watchers have applied a revision."""
