"""The clients that are connected: whose they are, how far they have followed, and what is said of them."""
