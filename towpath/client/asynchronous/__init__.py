"""The client for applications on asyncio: the same calls, awaited."""
