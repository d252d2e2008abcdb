"""The Pointsman server: which URL is live for ``tenant / service / env / version``."""
