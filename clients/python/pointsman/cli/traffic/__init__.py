"""Shares of traffic: as people write them, and what a change makes of them."""
