"""`towpath dev`: the stack and all workers in one terminal; what is saved is checked, and runs a moment later."""

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.text import Text

from towpath.cli.dev_imports import Imports
from towpath.cli.dev_processes import Checks
from towpath.errors import ConfigurationError, NotFoundError, RefusedError, TowpathError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.cli.dev_checks import Loaded
    from towpath.stack.client import StackClient

SUFFIXES = frozenset({".py", ".avsc", ".json", ".yaml", ".yml", ".sql", ".toml"})
FOLDERS = ("sagas", "pipelines", "schemas", "infra/postgres")
DEBOUNCE_MILLISECONDS = 120
"""An editor writes a file in several steps, and a formatter writes it again: they count as one save."""
LOOK_SECONDS = 0.1
"""How often the logs are read on."""
READY_SECONDS_MAX = 120.0
SAGAS_MAX = 500
"""Of how many instances it is remembered what was shown last."""


def register(app: typer.Typer) -> None:
    """Add the verbs to `app`."""
    app.command("dev")(dev)
    app.command("restart")(restart)


def restart(name: Annotated[str, typer.Argument(help="A name that `towpath status` shows.")]) -> None:
    """Stop one part or worker and start it again; ready when this command ends."""
    from towpath.stack.client import StackClient

    with StackClient(load_settings().stack_home) as client:
        client.restart(name)
        client.wait_ready([name], READY_SECONDS_MAX)


def dev(
    quiet: Annotated[
        bool, typer.Option("--quiet", help="Show checks, sagas and restarts, and no worker's log.")
    ] = False,
) -> None:
    """Run the stack and all workers; check and restart what a save concerns; Ctrl-C stops all.

    Type `restart NAME` to start one worker again.
    """
    try:
        import watchfiles  # noqa: F401 - asked for before anything is started
    except ModuleNotFoundError as error:
        from towpath.stack.machine import STACK_EXTRA

        raise ConfigurationError(
            "the package watchfiles is not installed: it tells what was saved", next_step=STACK_EXTRA
        ) from error
    settings = load_settings()
    with _interrupted_by_sigterm(), _alone(settings.stack_home):
        Session(settings, quiet=quiet).run()


@contextmanager
def _alone(stack_home: Path) -> Iterator[None]:
    """Hold the stack for one `towpath dev`: of two, each restarts what both saw saved, and the end of one stops both's.

    Raises RefusedError where another one runs. The lock goes with the process that holds it, however that ends.
    """
    from towpath.stack.home import Home

    home = Home(Path(stack_home).resolve())
    home.make()
    with home.dev_lock.open("a+", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            lock.seek(0)
            raise RefusedError(
                f"another `towpath dev` runs on the stack in {home.root} (pid {lock.read() or 'unknown'})",
                kept="it goes on, and so do its workers",
                next_step="go on in its terminal, or press Ctrl-C there, then: towpath dev",
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@contextmanager
def _interrupted_by_sigterm() -> Iterator[None]:
    def interrupt(_: int, __: FrameType | None) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _uninterrupted() -> Iterator[None]:
    """Let a second Ctrl-C pass: who presses it twice wants it to end, and not half of the workers to run on."""
    before = {number: signal.signal(number, signal.SIG_IGN) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Session:
    """One run of `towpath dev`. The thread that runs it alone starts and stops workers."""

    def __init__(self, settings: Settings, *, quiet: bool = False) -> None:
        self._settings = settings
        self._quiet = quiet
        self._console = Console(soft_wrap=True, highlight=False)
        self._loaded: Loaded | None = None
        self._untaken: set[Path] = set()  # saved, and not running yet: something was wrong, there or in another file
        self._ended = threading.Event()
        self._asked: list[str] = []
        self._positions: dict[str, int] = {}
        self._width = 12
        self._checks = Checks(settings.root)

    def run(self) -> None:
        """Run until interrupted; what this session started is stopped then."""
        from towpath.stack.client import StackClient, running
        from towpath.stack.up import down, up

        was_up = bool(running(self._settings.stack_home))
        loaded = self._look()
        try:
            self.say("dev", "starting the stack" if not was_up else "the stack runs already")
            up(self._settings, watcher=_Quiet(self))
            with StackClient(self._settings.stack_home) as client:
                self._follow(client, loaded)
        except KeyboardInterrupt:
            self.say("dev", "stopping")
        finally:
            with _uninterrupted():
                self._ended.set()
                self._checks.close()
                if was_up:
                    self._stop_workers()
                else:
                    down(self._settings)
                self.say("dev", "stopped; the data stays")

    def say(self, who: str, text: str, style: str = "") -> None:
        """Show one line."""
        from towpath.cli.dev_lines import line

        self.show(line(who, self._width, text, style))

    def show(self, text: Text) -> None:
        """Show a line that is made already."""
        self._console.print(text)

    # --- saves ------------------------------------------------------------------------------------------------------

    def _follow(self, client: "StackClient", loaded: "Loaded") -> None:
        from watchfiles import watch

        from towpath.stack.client import running

        for work in (self._tail, self._watch_sagas, self._listen):
            threading.Thread(target=work, daemon=True).start()
        self._take(client, loaded)
        self._prove()
        folders = [path for name in FOLDERS if (path := self._settings.root / name).is_dir()]
        root = self._settings.root
        for changes in watch(
            *folders,
            root / "towpath.toml",
            watch_filter=lambda _, path: _concerns(root, Path(path)),
            debounce=DEBOUNCE_MILLISECONDS * 4,
            step=DEBOUNCE_MILLISECONDS,
            rust_timeout=500,
            yield_on_timeout=True,
        ):
            while self._asked:
                self._restart_by_hand(client, self._asked.pop(0))
            if not running(self._settings.stack_home):
                self.say("dev", "the stack was stopped elsewhere; go on with: towpath dev", "yellow")
                return
            if changes:
                self._saved(client, sorted({Path(path) for _, path in changes}))

    def _saved(self, client: "StackClient", paths: list[Path]) -> None:
        began = time.monotonic()
        shown = ", ".join(path.relative_to(self._settings.root).as_posix() for path in paths[:3])
        self.say("dev", f"saved {shown}{f' and {len(paths) - 3} more' if len(paths) > 3 else ''}")
        loaded = self._look()
        self._untaken.update(paths, (self._settings.root / path for path in loaded.written))
        if loaded.problem:
            return
        proof = self._checks.prove()  # beside the restart: what is proved wrong is shown, and runs all the same
        try:
            self._take(client, loaded, began)
        except TowpathError as error:
            fix = f"; {error.next_step}" if error.next_step else ""
            self.say("dev", f"{error.cause}{fix}; what ran before goes on", "red")
        self._show_proof(proof)

    def _look(self) -> "Loaded":
        """Generate and import in a process of its own; say what is wrong, and keep what ran before."""
        loaded = self._checks.load()
        if loaded.problem:
            kept = "; what ran before goes on" if self._loaded is not None else ""
            self.say("check", f"{loaded.problem}{kept}", "red")
        for path in loaded.written:
            self.say("check", f"wrote {path}", "dim")
        return loaded

    def _prove(self) -> None:
        self._show_proof(self._checks.prove())

    def _show_proof(self, proof: "Callable[[], tuple[str, ...]]") -> None:
        from towpath.cli.dev_lines import proof_line

        for said in proof():
            self.show(proof_line(self._width, said))

    def _take(self, client: "StackClient", loaded: "Loaded", began: float | None = None) -> None:
        """Let what runs be what the files say: new workers start, gone ones stop, those that are concerned restart.

        What was saved is forgotten once it runs, not before: the save that fixes one file takes the others along.
        """
        if loaded.problem:
            return
        before = self._loaded
        self._width = max([12, *map(len, loaded.workers)])
        root = self._settings.root
        changed = sorted(self._untaken)
        if before is not None:
            self._provide(changed, loaded, before)
        concerned = Imports(root, ("sagas", "pipelines", "schemas")).concerned(loaded.workers, changed)
        concerned |= {name for name, said in loaded.topics.items() if before and before.topics.get(name) != said}
        if root / "towpath.toml" in changed:
            self._settings = load_settings(root)
            concerned |= loaded.workers.keys()
        known = client.status()
        started = [name for name in loaded.workers if name not in known or known[name].pid is None]
        gone = [name for name in (before.workers if before else ()) if name not in loaded.workers]
        again = [name for name in loaded.workers if name in concerned and name not in started]
        self._start(client, started)
        self._restart(again)
        self._loaded = loaded
        self._untaken.clear()
        for name in gone:
            client.stop(name)
            self.say(name, "stopped: it is no longer part of the project")
        if started or again:
            self._await(client, [*started, *again], began)

    def _provide(self, changed: list[Path], loaded: "Loaded", before: "Loaded") -> None:
        """Give databases, broker and registry what the files ask for by now."""
        from towpath.participant.postgres import apply_service_schema
        from towpath.stack import prepare
        from towpath.stack.postgres import make_databases

        settings = self._settings = load_settings(self._settings.root)
        if loaded.topics != before.topics or any(path.suffix in {".avsc", ".yaml"} for path in changed):
            prepare.make_topics(settings)
            prepare.register_schemas(settings)
        services = {name.partition(":")[2] for name in loaded.workers if name.startswith("service:")}
        if loaded.topics != before.topics:
            make_databases(settings)
            prepare.apply_tables(settings)
        if loaded.workers.keys() != before.workers.keys():
            prepare.make_connectors(settings)
        tables = {
            path.stem if path.parent.name == "postgres" else path.parent.name
            for path in changed
            if path.suffix == ".sql"
        }
        for service in sorted(tables & services):
            apply_service_schema(settings, service)
            self.say(f"service:{service}", "its tables are as its SQL says")

    # --- workers ----------------------------------------------------------------------------------------------------

    def _start(self, client: "StackClient", names: Iterable[str]) -> None:
        from towpath.stack.workers import worker_process

        for name in names:
            environment = {**os.environ, "TOWPATH_LOG_JSON": "true"}
            client.start(worker_process(self._settings, name, environment=environment, waits_to_begin=True))

    def _restart(self, names: Iterable[str]) -> None:
        """Stop and start workers side by side: each stop waits for its worker to leave its group."""
        from towpath.stack.client import StackClient

        def again(name: str) -> None:
            with suppress(TowpathError), StackClient(self._settings.stack_home) as client:
                client.restart(name)

        threads = [threading.Thread(target=again, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _restart_by_hand(self, client: "StackClient", word: str) -> None:
        names = [name for name in client.status() if word in {name, name.partition(":")[2]}]
        if not names:
            self.say("dev", f"no worker is called {word!r}", "yellow")
            return
        began = time.monotonic()
        self._restart(names)
        self._await(client, names, began)

    def _await(self, client: "StackClient", names: list[str], began: float | None) -> None:
        """Wait until these workers are ready, and say so; one that cannot be is told, and left to be fixed."""
        for name in names:
            try:
                client.wait_ready([name], READY_SECONDS_MAX)
            except TowpathError as error:
                self.say(name, error.cause, "red")
            else:
                after = f" after {time.monotonic() - began:.1f} s" if began is not None else ""
                self.say(name, f"runs{after}", "green")

    def _stop_workers(self) -> None:
        from towpath.stack.client import StackClient

        with suppress(NotFoundError), StackClient(self._settings.stack_home) as client:
            for name in self._loaded.workers if self._loaded is not None else ():
                with suppress(NotFoundError):
                    client.stop(name)

    # --- what is shown ----------------------------------------------------------------------------------------------

    def _tail(self) -> None:
        """Show what workers say, from now on."""
        from towpath.cli.dev_lines import log_lines
        from towpath.stack.home import Home

        home = Home(self._settings.stack_home)
        while not self._ended.wait(LOOK_SECONDS):
            for name in self._loaded.workers if self._loaded is not None else ():
                path = home.log_file(name)
                with suppress(OSError):
                    for said in self._read_on(name, path):
                        if not self._quiet:
                            for text in log_lines(name, self._width, said):
                                self.show(text)

    def _read_on(self, name: str, path: Path) -> list[str]:
        size = path.stat().st_size
        position = self._positions.get(name, 0)
        if name not in self._positions and size > 64 * 1024:
            position = size  # of an earlier session: that is read with towpath logs
        if size < position:
            position = 0  # it was cut
        with path.open("rb") as file:
            file.seek(position)
            said = file.read()
        whole = said[: said.rfind(b"\n") + 1]
        self._positions[name] = position + len(whole)
        return whole.decode("utf-8", errors="replace").splitlines()

    def _watch_sagas(self) -> None:
        """Show how sagas get on, as the view of all instances has it."""
        from towpath.cli.dev_lines import saga_line
        from towpath.facade import Project

        shown: dict[str, str] = {}
        while not self._ended.is_set():
            try:
                client = Project(self._settings).client()
                for status in client.watch(seconds=3600):
                    if self._ended.is_set():
                        return
                    text = saga_line(self._width, status)
                    if shown.get(status.saga_id) != text.plain:
                        self.show(text)
                    shown = {**dict(list(shown.items())[-SAGAS_MAX:]), status.saga_id: text.plain}
            except (TowpathError, OSError, RuntimeError):
                self._ended.wait(2.0)  # a part is being started or stopped

    def _listen(self) -> None:
        """Take what a person types."""
        with suppress(OSError, ValueError):
            for said in sys.stdin:
                words = said.split()
                if len(words) == 2 and words[0] == "restart":
                    self._asked.append(words[1])
                elif words:
                    self.say("dev", "type restart NAME, or press Ctrl-C", "yellow")


class _Quiet:
    """Says how the stack gets on, a line each part."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def begin(self, files: int, size_bytes: int) -> None:
        self._session.say("dev", f"fetching {files} files, {size_bytes / 2**20:,.0f} MiB")

    def advance(self, size_bytes: int) -> None:
        pass

    def step(self, text: str) -> None:
        self._session.say("dev", text, "dim")

    def ready(self, name: str, seconds: float) -> None:
        self._session.say("dev", f"{name} ready after {seconds:.1f} s", "dim")


def _concerns(root: Path, path: Path) -> bool:
    """Say whether a file that changed is one that a person wrote and a worker or a check reads."""
    from towpath.contract.catalogue import DERIVED_FILE

    place: Any = path.relative_to(root).parts if path.is_relative_to(root) else ()
    generated = place[:2] == ("schemas", "records") or path.name == DERIVED_FILE
    hidden = any(part.startswith(".") or part == "__pycache__" for part in place)
    return path.suffix in SUFFIXES and not generated and not hidden
