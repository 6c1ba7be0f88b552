"""A user's own project, made from the wheel alone: built, installed into an empty venv, begun with `towpath new`."""

import os
import signal
import subprocess
import sys
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from uv import find_uv_bin

from tests.stack_fixture import ROOT, stack_environment

LOCK = ROOT / "towpath" / "scaffold" / "templates" / "requirements.lock"


def install(folder: Path) -> Path:
    """Build the wheel, install it with its locked dependencies into a venv in `folder`; return the venv's programs.

    Nothing is fetched: the dependencies are those that this environment was set up from. Where they are no longer in
    uv's cache, they are taken from this environment itself.
    """
    uv = [find_uv_bin()]
    # Named in each command: uv would else work on the environment that this test runs in.
    target = ["--python", str(folder / "venv" / "bin" / "python")]
    run(
        [
            sys.executable,
            "-m",
            "uv",
            "build",
            "--quiet",
            "--wheel",
            "--no-build-isolation",
            "--out-dir",
            str(folder / "dist"),
            str(ROOT),
        ]
    )
    run([*uv, "venv", "--quiet", "--python", sys.executable, str(folder / "venv")])
    locked = [*uv, "pip", "sync", "--quiet", *target, "--offline", "--require-hashes", str(LOCK)]
    if subprocess.run(locked, capture_output=True, check=False).returncode != 0:
        python = f"python{sys.version_info.major}.{sys.version_info.minor}"
        own = folder / "venv" / "lib" / python / "site-packages"
        (own / "shared.pth").write_text(sysconfig.get_paths()["purelib"] + "\n", encoding="utf-8")
    (wheel,) = (folder / "dist").glob("*.whl")
    run([*uv, "pip", "install", "--quiet", *target, "--offline", "--no-deps", str(wheel)])
    return folder / "venv" / "bin"


def run(command: list[str], *, cwd: Path | None = None, env: dict[str, str] | None = None, seconds: float = 240) -> str:
    """Run a command that must succeed; return what it wrote on stdout."""
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True, timeout=seconds, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}{done.stderr}"
    return done.stdout


@dataclass(frozen=True, slots=True)
class OwnProject:
    """A project in `root`, driven by the programs of its own venv; `environment` has the ports of its stack."""

    root: Path
    programs: Path
    environment: dict[str, str]

    def towpath(self, *arguments: str, seconds: float = 240) -> str:
        """Run a towpath command that must succeed, as a person does in the project's folder."""
        command = [str(self.programs / "towpath"), *arguments]
        return run(command, cwd=self.root, env=self.environment, seconds=seconds)

    def python(self, *arguments: str, seconds: float = 240) -> str:
        """Run the venv's Python, which must succeed."""
        return run([str(self.programs / "python"), *arguments], cwd=self.root, env=self.environment, seconds=seconds)

    def files(self) -> list[Path]:
        """Return the files that people write and commit: without what is generated or belongs to this machine."""
        skipped = {".towpath", "__pycache__", ".pytest_cache"}
        return [
            path.relative_to(self.root)
            for path in sorted(self.root.rglob("*"))
            if path.is_file() and not skipped & set(path.relative_to(self.root).parts)
        ]


def environment_of(folder: Path) -> dict[str, str]:
    """Return the variables of a user's shell, with those of a stack in `folder` on free ports."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("TOWPATH_", "PYTHON", "VIRTUAL_ENV"))}
    return {**own, **stack_environment(folder / "stack"), "PYTHONUNBUFFERED": "1"}


def begin(folder: Path, programs: Path, name: str = "myshop") -> OwnProject:
    """Run `towpath new`, with a stack on free ports."""
    project = OwnProject(folder / name, programs, environment_of(folder))
    run([str(programs / "towpath"), "new", name], cwd=folder, env=project.environment)
    return project


class Dev:
    """A `towpath dev` that runs; `lines` are what it has shown so far."""

    def __init__(self, process: "subprocess.Popen[str]", log: Path) -> None:
        self.process = process
        self._log = log

    @property
    def text(self) -> str:
        """Return what it has shown."""
        return self._log.read_text(encoding="utf-8", errors="replace")

    def type(self, line: str) -> None:
        """Type a line into its terminal."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{line}\n")
        self.process.stdin.flush()

    def interrupt(self) -> None:
        """Press Ctrl-C, and see that it ends and says so."""
        self.process.send_signal(signal.SIGINT)
        assert self.process.wait(120) == 0, self.text
        assert self.text.rstrip().endswith("stopped; the data stays")

    def wait_for(self, holds: Callable[[str], bool], what: str, *, since: int = 0, seconds: float = 240) -> str:
        """Return what it has shown since position `since` once that `holds`."""
        end = time.monotonic() + seconds
        while True:
            said = self.text[since:]
            if holds(said):
                return said
            assert self.process.poll() is None, f"towpath dev ended: {self.text}"
            assert time.monotonic() < end, f"towpath dev has not shown {what}: {self.text}"
            time.sleep(0.1)


@contextmanager
def dev(project: OwnProject) -> Iterator[Dev]:
    """Run `towpath dev` as in a terminal; interrupt it at the end, and see that nothing of it is left."""
    log = project.root.parent / "dev.log"
    # What a shell runs in the background ignores Ctrl-C, and so does all that it starts (POSIX, XCU 2.11): these tests
    # may be run like that. A signal that this process handles is at its default in what it starts.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with log.open("w", encoding="utf-8") as out:
            process = subprocess.Popen(
                [str(project.programs / "towpath"), "dev"],
                cwd=project.root,
                env=project.environment,
                stdin=subprocess.PIPE,
                stdout=out,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
            )
    finally:
        signal.signal(signal.SIGINT, before)
    running = Dev(process, log)
    try:
        yield running
    finally:
        assert process.stdin is not None
        process.stdin.close()
        if process.poll() is None:
            process.terminate()
        try:
            process.wait(120)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
