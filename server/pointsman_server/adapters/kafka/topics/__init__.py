"""The topics: what a server needs of them, their creation, our rights on them, and how many brokers they may lose."""
