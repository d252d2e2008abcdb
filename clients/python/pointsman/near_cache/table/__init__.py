"""The routes in memory, and how reads find them."""
