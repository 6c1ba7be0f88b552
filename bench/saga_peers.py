"""The peers of `bench.saga`: Restate and DBOS, from the registries into the user's cache, on the PostgreSQL of ours.

The one rule: the same work. Each step is one transaction of inbox row, business change and reply row, in a database
of its own; a saga counts when its last row is in the last database.
"""

import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psycopg
from platformdirs import user_cache_path

from bench.saga_hops import quantile
from bench.saga_processes import cpu_seconds
from towpath.settings import Settings
from towpath.stack.client import StackClient
from towpath.stack.home import Home

RESTATE_SERVER, RESTATE_SDK, DBOS = "1.7.12", "1.2.0", "3.4.0"
DATABASES = ("peer_flight", "peer_hotel", "peer_payment")
CONTENDERS = Path(__file__).resolve().parent / "contenders"
SENDERS = 4
WARM_SAGAS = 100
DEADLINE_SECONDS = 90.0
INSTALL_SECONDS_MAX = 180.0
_TABLES = """
CREATE TABLE inbox (key text PRIMARY KEY, type text NOT NULL, payload bytea NOT NULL,
                    recorded_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE booking (trip_id text PRIMARY KEY, key text NOT NULL, detail text NOT NULL,
                      cancelled boolean NOT NULL DEFAULT false, booked_at timestamptz NOT NULL DEFAULT now());
CREATE TABLE outbox (key text NOT NULL, type text NOT NULL, payload bytea NOT NULL,
                     created_at timestamptz NOT NULL DEFAULT now());
"""

Note = Callable[[str], None]


def measure_peers(settings: Settings, sagas: int, alone: int, note: Note) -> dict[str, Any]:
    """Return one object for each peer; one that cannot be had or run says why in `error`."""
    found: dict[str, Any] = {}
    for name, measure in (("restate", _restate), ("dbos", _dbos)):
        try:
            _make_databases(settings)
            found[name] = measure(settings, sagas, alone)
        except (OSError, subprocess.SubprocessError, RuntimeError, httpx.HTTPError) as error:
            found[name] = {"error": f"{type(error).__name__}: {error}"[:500]}
        note(f"{name}: {found[name]}")
    return found


# --- What both need -----------------------------------------------------------------------------------------------


def _url(settings: Settings, database: str) -> str:
    password = settings.postgres.connection_options().get("password")
    url = f"{settings.postgres.url.rstrip('/')}/{database}"
    return url if not password else url.replace("@", f":{password}@", 1)


def _make_databases(settings: Settings) -> None:
    with psycopg.connect(_url(settings, "postgres"), autocommit=True) as connection:
        for database in (*DATABASES, "peer_system"):
            connection.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)".encode())
            connection.execute(f"CREATE DATABASE {database}".encode())
    for database in DATABASES:
        with psycopg.connect(_url(settings, database)) as connection:
            connection.execute(_TABLES.encode())


def _count(settings: Settings, prefix: str) -> int:
    """Return how many sagas have their row in every database."""
    counts = []
    for database in reversed(DATABASES):
        with psycopg.connect(_url(settings, database)) as connection:
            row = connection.execute(
                "SELECT count(*) FROM booking WHERE trip_id LIKE %s AND NOT cancelled", (f"{prefix}%",)
            ).fetchone()
            counts.append(int(row[0]) if row else 0)
    return min(counts)


def _postgres_seconds(settings: Settings) -> float:
    with StackClient(Home(settings.stack_home)) as client:
        pid = client.status()["postgres"].pid
    return cpu_seconds(pid) if pid else 0.0


def _venv(name: str, *packages: str) -> Path:
    home = user_cache_path("towpath") / "bench" / name
    python = home / "bin" / "python"
    if not (home / ".ready").exists():
        _run([sys.executable, "-m", "venv", str(home)])
        _run([str(python), "-m", "pip", "install", "--quiet", "psycopg[binary,pool]", *packages])
        (home / ".ready").touch()
    return python


def _run(command: list[str], folder: Path | None = None) -> None:
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=INSTALL_SECONDS_MAX, check=False)
    if done.returncode:
        raise RuntimeError(f"{command[0]}: {done.stderr.strip()[-300:]}")


@contextmanager
def _process(command: list[str], **options: Any) -> Iterator["subprocess.Popen[str]"]:
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stderr=log, text=True, **options)
        try:
            yield process
        except Exception as error:
            log.seek(0)
            raise RuntimeError(f"{error}; it said: {log.read()[-500:].decode(errors='replace')}") from error
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _figures(sagas: int, seconds: float, milliseconds: list[float], spent: dict[str, float]) -> dict[str, Any]:
    ordered = sorted(milliseconds)
    return {
        "sagas_per_second": round(sagas / seconds, 1),
        "alone_p50_milliseconds": round(quantile(ordered, 0.5), 1),
        "alone_p99_milliseconds": round(quantile(ordered, 0.99), 1),
        "cpu_milliseconds_per_saga": round(sum(spent.values()) * 1000 / sagas, 2),
        "processes": {name: round(value * 1000 / sagas, 2) for name, value in spent.items()},
        "sagas": sagas,
    }


# --- Restate ------------------------------------------------------------------------------------------------------


def _restate_server() -> Path:
    home = user_cache_path("towpath") / "bench" / f"restate-server-{RESTATE_SERVER}"
    found = list(home.glob("node_modules/@restatedev/restate-server-linux-*/bin/restate-server"))
    if not found:
        if shutil.which("npm") is None:
            raise RuntimeError("npm is not installed, and Restate's server is an npm package")
        home.mkdir(parents=True, exist_ok=True)
        package = f"@restatedev/restate-server@{RESTATE_SERVER}"
        _run(["npm", "install", "--no-audit", "--no-fund", "--ignore-scripts", "--prefix", str(home), package])
        found = list(home.glob("node_modules/@restatedev/restate-server-linux-*/bin/restate-server"))
    return found[0]


def _restate(settings: Settings, sagas: int, alone: int) -> dict[str, Any]:
    from bench.saga_ours import free_port

    server, python = _restate_server(), _venv(f"restate-{RESTATE_SDK}", f"restate-sdk=={RESTATE_SDK}", "hypercorn")
    ingress, admin, node, port = free_port(), free_port(), free_port(), free_port()
    told = {"urls": [_url(settings, name) for name in DATABASES], "port": port}
    with tempfile.TemporaryDirectory(prefix="towpath-bench-restate-") as folder:
        environment = {
            "PATH": "/usr/bin:/bin",
            "RESTATE_BASE_DIR": folder,
            "RESTATE_NODE_NAME": "bench",
            "RESTATE_BIND_PORT": str(node),
            "RESTATE_LISTEN_MODE": "tcp",
            "RESTATE_INGRESS__BIND_PORT": str(ingress),
            "RESTATE_ADMIN__BIND_PORT": str(admin),
            "RESTATE_DISABLE_TELEMETRY": "true",
            "RUST_LOG": "error",
            "HOME": folder,
        }
        with (
            _process([str(server), "--no-logo"], env=environment, cwd=folder, stdout=subprocess.DEVNULL) as restate,
            _process([str(python), str(CONTENDERS / "restate_saga.py"), json.dumps(told)]) as application,
            httpx.Client(timeout=30) as http,
        ):
            _register(http, f"http://127.0.0.1:{admin}", f"http://127.0.0.1:{port}")
            call = f"http://127.0.0.1:{ingress}/trips/book_trip"
            _send_all(f"{call}/send", "warm", WARM_SAGAS)
            _await_all(settings, "warm", WARM_SAGAS)
            began = {
                "server": cpu_seconds(restate.pid),
                "application": cpu_seconds(application.pid),
                "postgres": _postgres_seconds(settings),
            }
            begin = time.monotonic()
            _send_all(f"{call}/send", "restate", sagas)
            _await_all(settings, "restate", sagas)
            seconds = time.monotonic() - begin
            spent = {
                "server": cpu_seconds(restate.pid) - began["server"],
                "application": cpu_seconds(application.pid) - began["application"],
                "postgres": _postgres_seconds(settings) - began["postgres"],
            }
            milliseconds = []
            for number in range(alone):
                at = time.monotonic()
                http.post(call, json=f"alone-{number}").raise_for_status()
                milliseconds.append((time.monotonic() - at) * 1000)
    return {"version": RESTATE_SERVER, **_figures(sagas, seconds, milliseconds, spent)}


def _register(http: httpx.Client, admin: str, application: str) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while True:
        try:
            if http.post(f"{admin}/deployments", json={"uri": application, "use_http_11": False}).is_success:
                return
        except httpx.HTTPError:
            pass
        if time.monotonic() > deadline:
            raise RuntimeError("Restate did not take the deployment")
        time.sleep(0.2)


def _send_all(url: str, prefix: str, sagas: int) -> None:
    """Start so many sagas, from a few threads, without waiting for them."""

    def send(place: int) -> None:
        with httpx.Client(timeout=30) as http:
            for number in range(place, sagas, SENDERS):
                http.post(url, json=f"{prefix}-{number}").raise_for_status()

    threads = [threading.Thread(target=send, args=(place,)) for place in range(SENDERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def _await_all(settings: Settings, prefix: str, sagas: int) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while _count(settings, prefix) < sagas:
        if time.monotonic() > deadline:
            raise RuntimeError(f"{_count(settings, prefix)} of {sagas} sagas were done in time")
        time.sleep(0.05)


# --- DBOS ---------------------------------------------------------------------------------------------------------


def _dbos(settings: Settings, sagas: int, alone: int) -> dict[str, Any]:
    python = _venv(f"dbos-{DBOS}", f"dbos=={DBOS}")
    told = {
        "urls": [_url(settings, name) for name in DATABASES],
        "system": _url(settings, "peer_system"),
        "sagas": sagas,
        "alone": alone,
    }
    command = [str(python), str(CONTENDERS / "dbos_saga.py"), json.dumps(told)]
    with _process(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        watchdog = threading.Timer(2 * DEADLINE_SECONDS, process.kill)
        watchdog.start()
        try:
            _answer(process, None)
            began = {"application": cpu_seconds(process.pid), "postgres": _postgres_seconds(settings)}
            seconds = json.loads(_answer(process, "backlog"))["seconds"]
            spent = {
                "application": cpu_seconds(process.pid) - began["application"],
                "postgres": _postgres_seconds(settings) - began["postgres"],
            }
            done = _count(settings, "dbos-")
            if done < sagas:
                raise RuntimeError(f"{done} of {sagas} sagas were done")
            milliseconds = json.loads(_answer(process, "alone"))["milliseconds"]
        finally:
            watchdog.cancel()
    return {"version": DBOS, **_figures(sagas, seconds, milliseconds, spent)}


def _answer(process: "subprocess.Popen[str]", order: str | None) -> str:
    """Give an order and return the answer, past whatever else the application prints."""
    assert process.stdin is not None
    assert process.stdout is not None
    if order is not None:
        process.stdin.write(f"{order}\n")
        process.stdin.flush()
    for line in process.stdout:
        if line.startswith("{") or (order is None and line.strip() == "ready"):
            return line
    raise RuntimeError("it ended without an answer")
