"""Background work of a process: waiting for events."""

import asyncio


async def first_of(*events: asyncio.Event, within: float | None = None) -> None:
    """Returns when any of the events is set, or after `within` seconds."""
    waits = [asyncio.ensure_future(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, timeout=within, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for wait in waits:
            wait.cancel()
