"""The channel for asyncio."""
