"""Three steps on DBOS: one workflow, each step one PostgreSQL transaction in a database of its own.

Run in a venv that holds dbos: `dbos_saga.py '{"urls": [...], "system": URL, "sagas": N, "alone": N}'`. It prints
`ready`, then for each line that it reads ("backlog" or "alone") one line of JSON.
"""

import json
import sys
import time
from typing import Any

import psycopg_pool
from dbos import DBOS

STEPS = ("seat", "room", "charge")
AT_ONCE = 64
pools: list[psycopg_pool.ConnectionPool] = []


@DBOS.step()  # type: ignore[untyped-decorator]
def book(place: int, trip: str) -> str:
    """Carry out one step: inbox row, business change and reply row in one transaction; once for each trip."""
    key = f"{trip}:{STEPS[place]}"
    with pools[place].connection() as connection:
        inserted = connection.execute(
            "INSERT INTO inbox (key, type, payload) VALUES (%s, %s, %s) ON CONFLICT DO NOTHING",
            (key, STEPS[place], b"reply"),
        )
        if inserted.rowcount:
            connection.execute(
                "INSERT INTO booking (trip_id, key, detail) VALUES (%s, %s, %s)", (trip, key, STEPS[place])
            )
            connection.execute(
                "INSERT INTO outbox (key, type, payload) VALUES (%s, %s, %s)", (key, STEPS[place], b"reply")
            )
    return key


@DBOS.step()  # type: ignore[untyped-decorator]
def unbook(place: int, trip: str) -> None:
    """Undo one step."""
    with pools[place].connection() as connection:
        connection.execute("UPDATE booking SET cancelled = true WHERE trip_id = %s", (trip,))


@DBOS.workflow()  # type: ignore[untyped-decorator]
def book_trip(trip: str) -> str:
    """Run the saga: the steps in order, and what was done undone if one fails for good."""
    done: list[int] = []
    try:
        for place in range(len(STEPS)):
            done.append(place)
            book(place, trip)
    except Exception:
        for place in reversed(done):
            unbook(place, trip)
        raise
    return trip


def run(trips: list[str]) -> float:
    """Run sagas, so many at once as the pools serve, and return the seconds that they took."""
    begin = time.monotonic()
    handles: list[Any] = []
    for trip in trips:
        handles.append(DBOS.start_workflow(book_trip, trip))
        if len(handles) >= AT_ONCE:
            handles.pop(0).get_result()
    for handle in handles:
        handle.get_result()
    return time.monotonic() - begin


def main(told: dict[str, Any]) -> None:
    """Answer each order on standard input."""
    pools.extend(psycopg_pool.ConnectionPool(url, min_size=4, max_size=16, open=True) for url in told["urls"])
    DBOS(config={"name": "bench", "system_database_url": told["system"], "log_level": "ERROR", "sys_db_pool_size": 20})
    DBOS.launch()
    run([f"warm-{number}" for number in range(100)])
    say("ready")
    for line in sys.stdin:
        if line.strip() == "backlog":
            say(json.dumps({"seconds": run([f"dbos-{number}" for number in range(told["sagas"])])}))
        elif line.strip() == "alone":
            found = []
            for number in range(told["alone"]):
                begin = time.monotonic()
                DBOS.start_workflow(book_trip, f"dbos-alone-{number}").get_result()
                found.append((time.monotonic() - begin) * 1000)
            say(json.dumps({"milliseconds": found}))
    DBOS.destroy()


def say(text: str) -> None:
    """Answer."""
    print(text, flush=True)


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
