"""Three steps on Restate: one service, each step one PostgreSQL transaction in a database of its own.

Run in a venv that holds restate-sdk: `restate_saga.py '{"urls": [...], "port": N}'`.
"""

import asyncio
import json
import sys
from typing import Any

import hypercorn.asyncio
import hypercorn.config
import psycopg_pool
import restate

STEPS = ("seat", "room", "charge")
UNDO = "UPDATE booking SET cancelled = true WHERE trip_id = %s"
trips = restate.Service("trips")
pools: list[psycopg_pool.AsyncConnectionPool] = []


async def book(place: int, trip: str) -> str:
    """Carry out one step: inbox row, business change and reply row in one transaction; once for each trip."""
    key = f"{trip}:{STEPS[place]}"
    async with pools[place].connection() as connection:
        inserted = await connection.execute(
            "INSERT INTO inbox (key, type, payload) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (key, STEPS[place], b"reply"),
        )
        if inserted.rowcount:
            await connection.execute(
                "INSERT INTO booking (trip_id, key, detail) VALUES (%s, %s, %s)", (trip, key, STEPS[place])
            )
            await connection.execute(
                "INSERT INTO outbox (key, type, payload) VALUES (%s, %s, %s)", (key, STEPS[place], b"reply")
            )
    return key


async def unbook(place: int, trip: str) -> None:
    """Undo one step."""
    async with pools[place].connection() as connection:
        await connection.execute(UNDO, (trip,))


@trips.handler()  # type: ignore[untyped-decorator]
async def book_trip(context: restate.Context, trip: str) -> str:
    """Run the saga: the steps in order, and what was done undone if one fails for good."""
    done: list[int] = []
    try:
        for place, step in enumerate(STEPS):
            done.append(place)
            await context.run_typed(step, book, place=place, trip=trip)
    except restate.TerminalError:
        for place in reversed(done):
            await context.run_typed(f"undo {STEPS[place]}", unbook, place=place, trip=trip)
        raise
    return trip


async def main(told: dict[str, Any]) -> None:
    """Serve the handler."""
    for url in told["urls"]:
        pool = psycopg_pool.AsyncConnectionPool(url, min_size=8, max_size=16, open=False)
        await pool.open(wait=True)
        pools.append(pool)
    config = hypercorn.config.Config()
    config.bind = [f"127.0.0.1:{told['port']}"]
    await hypercorn.asyncio.serve(restate.app([trips]), config)


if __name__ == "__main__":
    asyncio.run(main(json.loads(sys.argv[1])))
