"""The stack's PostgreSQL server: its data folder, who may connect, and the databases of services, views, registry."""

import os
import re
import signal
import subprocess
from collections.abc import Iterable, Mapping
from contextlib import closing
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import psycopg
from psycopg import sql

from towpath.contract.catalogue import Catalogue
from towpath.errors import RefusedError, WorldError
from towpath.outbox.postgres import apply_outbox_schema
from towpath.outbox.topics import writable_topics
from towpath.project import load_views
from towpath.settings import PostgresSettings, Settings
from towpath.stack.config import captured_databases, databases, username
from towpath.stack.processes import Machine
from towpath.stack.supervisor.launch import before_exec
from towpath.stack.supervisor.spec import Identity

CONNECT_SECONDS = 10


def make_cluster(data: Path, machine: Machine, settings: Settings, environment: Mapping[str, str]) -> None:
    """Make PostgreSQL's data folder if it is missing, and write who may connect.

    A folder that an interrupted run left half made holds no PG_VERSION or no control file: it is made anew, since
    nothing can have been stored in it. Raises RefusedError where the data is of another major version.
    """
    major = _major_version(machine)
    found = data / "PG_VERSION"
    if (data / "global" / "pg_control").exists() and found.exists():
        version = found.read_text(encoding="ascii").strip()
        if version != major:
            raise RefusedError(
                f"the data in {data} is of PostgreSQL {version}, and this is PostgreSQL {major}",
                kept="the data, untouched",
                next_step="dump it with the old version, or begin anew: towpath up --fresh",
            )
    else:
        _initialise(data, machine, environment, username(settings.postgres))
    _write_access(data, settings, machine.postgres_identity)
    if settings.postgres.password:
        _set_password(data, machine, environment, settings.postgres)


def _major_version(machine: Machine) -> str:
    said = subprocess.run(
        [machine.postgres_programs / "postgres", "--version"], capture_output=True, text=True, check=True
    )
    return said.stdout.split()[-1].split(".", maxsplit=1)[0]


def _initialise(data: Path, machine: Machine, environment: Mapping[str, str], owner: str) -> None:
    data.mkdir(parents=True, exist_ok=True)
    subprocess.run(["find", str(data), "-mindepth", "1", "-delete"], check=True)
    data.chmod(0o700)
    identity = machine.postgres_identity
    if identity:
        os.chown(data, identity.user_id, identity.group_id)
    command = [
        str(machine.postgres_programs / "initdb"),
        f"--pgdata={data}",
        f"--username={owner}",
        "--auth=trust",
        "--encoding=UTF8",
        "--locale=C.UTF-8",
        "--data-checksums",
        "--no-instructions",
        "--no-sync",
    ]
    _run(command, data, machine, environment, "")
    # initdb made hundreds of files; one sync of the file system is cheaper than one each.
    os.sync()


def _set_password(data: Path, machine: Machine, environment: Mapping[str, str], postgres: PostgresSettings) -> None:
    """Give the owner the password of the settings, in single-user mode: it works whatever the password was before."""
    if postgres.password is None:
        return
    role = '"' + username(postgres).replace('"', '""') + '"'
    secret = postgres.password.get_secret_value().replace("'", "''")
    command = [str(machine.postgres_programs / "postgres"), "--single", "-D", str(data), "postgres"]
    _run(command, data, machine, environment, f"ALTER ROLE {role} PASSWORD '{secret}'\n")


def _run(command: list[str], data: Path, machine: Machine, environment: Mapping[str, str], said: str) -> None:
    done = subprocess.run(
        command,
        env=dict(environment),
        cwd=data.parent,
        input=said,
        capture_output=True,
        text=True,
        check=False,
        preexec_fn=before_exec(machine.postgres_identity, signal.SIGKILL),
    )
    if done.returncode != 0:
        answer = (done.stderr.strip() or done.stdout.strip()).splitlines()
        # The first error is the cause; what follows is what came of it.
        cause = next((line for line in answer if re.search("error:|FATAL|PANIC", line)), " ".join(answer[-1:]))
        raise WorldError(
            f"PostgreSQL's data folder {data} cannot be prepared: {cause}",
            next_step="fix that (a full disk, say), then towpath up",
        )


def _write_access(data: Path, settings: Settings, identity: Identity | None) -> None:
    """Let this machine's programs in: with passwords where the settings have one, else by being on this machine."""
    method = "scram-sha-256" if settings.postgres.password else "trust"
    lines = [f"{kind:<6} {base:<12} all  {where}  {method}" for kind, base, where in _DOORS]
    path = data / "pg_hba.conf"
    path.write_text("# Written by towpath up.\n" + "\n".join(lines) + "\n", encoding="utf-8")
    if identity:
        os.chown(path, identity.user_id, identity.group_id)


_DOORS = (
    ("host", "all", "127.0.0.1/32"),
    ("host", "all", "::1/128"),
    ("host", "replication", "127.0.0.1/32"),
    ("host", "replication", "::1/128"),
)


def make_databases(settings: Settings) -> tuple[str, ...]:
    """Create the databases that are missing; return their names. Raises WorldError where the server refuses."""
    with closing(_connect(settings, "postgres")) as connection:
        connection.autocommit = True
        known = {row[0] for row in connection.execute("SELECT datname FROM pg_database")}
        missing = tuple(name for name in databases(settings) if name not in known)
        for name in missing:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
    return missing


def apply_service_schemas(settings: Settings, scripts: Mapping[str, Iterable[bytes]]) -> None:
    """Give each service's database its outbox and what the service itself brings (`scripts`, by database)."""
    catalogue, views = Catalogue.load(settings), load_views(settings)
    for name in captured_databases(settings):
        with closing(_connect(settings, name)) as connection:
            topics = writable_topics(catalogue, name, views)
            apply_outbox_schema(connection, settings.postgres, settings.outbox, topics=topics)
            for script in scripts.get(name, ()):
                with connection.transaction():
                    connection.execute(script)


def _connect(settings: Settings, database: str) -> psycopg.Connection[Any]:
    url = f"{settings.postgres.url.rstrip('/')}/{database}"
    try:
        password = settings.postgres.connection_options().get("password")
        return psycopg.connect(url, connect_timeout=CONNECT_SECONDS, password=password)
    except psycopg.OperationalError as error:
        raise WorldError(
            f"database {database} at {urlsplit(url).hostname}:{urlsplit(url).port}: {str(error).strip()}",
            next_step="towpath logs postgres",
        ) from error
