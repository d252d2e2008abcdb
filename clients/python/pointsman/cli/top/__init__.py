"""``pointsman top``: what a server does, live on a terminal."""
