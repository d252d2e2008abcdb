"""``make bench``: what a call costs, beside one that does nothing. It prints figures, and fails over none."""
