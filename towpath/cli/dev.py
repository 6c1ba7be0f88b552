"""`towpath dev`: the stack and all workers in one terminal; what is saved is checked, and runs a moment later."""

import fcntl
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from towpath.cli.dev_imports import Imports
from towpath.cli.dev_processes import Checks
from towpath.cli.dev_saves import Saves
from towpath.errors import ConfigurationError, NotFoundError, RefusedError, TowpathError
from towpath.settings import Settings, load_settings

if TYPE_CHECKING:
    from towpath.cli.dev_checks import Loaded
    from towpath.stack.client import StackClient
    from towpath.stack.supervisor.spec import ProcessStatus

CODE = ("sagas", "pipelines", "schemas")
LOOK_SECONDS = 0.1
"""How often the logs are read on."""
TURN_SECONDS = 0.1
BUSY_TURN_SECONDS = 0.05
"""The same, while a worker is waited for."""
STACK_SECONDS = 0.5
"""How often the stack is looked at where nothing is waited for."""
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
    less_memory: Annotated[
        bool,
        typer.Option(
            "--less-memory", help="Keep no second process waiting for each worker: 75 MiB less each, slower restarts."
        ),
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
        Session(settings, quiet=quiet, successors=not less_memory).run()


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


@dataclass(frozen=True, slots=True)
class Awaited:
    """A worker that is to get ready: how it stood when it was begun, when its file was saved, how long it may take."""

    first: "ProcessStatus | None"
    began: float | None
    end: float
    is_told: bool = False


class Session:
    """One run of `towpath dev`. The thread that runs it alone starts and stops workers."""

    def __init__(self, settings: Settings, *, quiet: bool = False, successors: bool = True) -> None:
        self._settings = settings
        self._quiet = quiet
        self._console = Console(soft_wrap=True, highlight=False)
        self._loaded: Loaded | None = None
        self._untaken: set[Path] = set()  # saved, and not running yet: something was wrong, there or in another file
        self._ended = threading.Event()
        self._asked: list[str] = []
        self._positions: dict[Path, int] = {}
        self._width = 12
        self._checks = Checks(settings.root)
        self._saves = Saves(settings.root)
        self._imports = Imports(settings.root, CODE)
        self._awaited: dict[str, Awaited] = {}
        self._successors = successors
        self._looked = 0.0

    def run(self) -> None:
        """Run until interrupted; what this session started is stopped then."""
        from towpath.stack.client import StackClient, running
        from towpath.stack.up import down, up

        was_up = bool(running(self._settings.stack_home))
        self._pass_earlier_logs()
        try:
            self._saves.begin()
            loaded = self._look_until_known()
            self.say("dev", "starting the stack" if not was_up else "the stack runs already")
            up(self._settings, watcher=_Quiet(self))
            with StackClient(self._settings.stack_home) as client:
                self._follow(client, loaded)
        except KeyboardInterrupt:
            self.say("dev", "stopping")
        finally:
            with _uninterrupted():
                self._ended.set()
                self._saves.close()
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
        from towpath.stack.client import NotRunning

        for work in (self._tail, self._watch_sagas, self._listen):
            threading.Thread(target=work, daemon=True).start()
        self._take(client, loaded)
        self._checks.prove()
        try:
            while True:
                self._turn(client)
        except NotRunning:
            self.say("dev", "the stack was stopped elsewhere; go on with: towpath dev", "yellow")

    def _turn(self, client: "StackClient") -> None:
        """Do what there is to do, or wait a moment for it. Raises NotRunning where the stack is gone."""
        was_saved = self._saves.any(BUSY_TURN_SECONDS if self._awaited else TURN_SECONDS)
        while self._asked:
            self._restart_by_hand(client, self._asked.pop(0))
        if was_saved:
            self._saved(client, self._saves.take())
        if time.monotonic() - self._looked > STACK_SECONDS or self._awaited:
            self._looked = time.monotonic()
            self._tell_started(client)
        self._tell_proof()

    def _saved(self, client: "StackClient", paths: list[Path]) -> None:
        from towpath.stack.client import NotRunning

        began = time.monotonic()
        shown = ", ".join(path.relative_to(self._settings.root).as_posix() for path in paths[:3])
        self.say("dev", f"saved {shown}{f' and {len(paths) - 3} more' if len(paths) > 3 else ''}")
        loaded = self._look()
        self._untaken.update(paths, (self._settings.root / path for path in loaded.written))
        if loaded.problem or loaded.was_cut:
            return
        self._checks.prove()  # beside the restart: what is proved wrong is shown, and runs all the same
        try:
            self._take(client, loaded, began)
        except NotRunning:
            raise
        except TowpathError as error:
            fix = f"; {error.next_step}" if error.next_step else ""
            self.say("dev", f"{error.cause}{fix}; what ran before goes on", "red")

    def _look_until_known(self) -> "Loaded":
        while (loaded := self._look()).was_cut:
            self._saves.take()
        return loaded

    def _look(self) -> "Loaded":
        """Generate and import in a process of its own; say what is wrong, and keep what ran before."""
        self._saves.follow(Imports(self._settings.root, CODE).beside)
        loaded = self._checks.load(
            self._saves.any,
            lambda: self.say("check", "the project is still being imported; a save begins anew", "yellow"),
        )
        kept = "; what ran before goes on" if self._loaded is not None else ""
        if loaded.was_cut:
            self.say("check", "given up, since another file was saved", "dim")
        elif loaded.problem:
            self.say("check", f"{loaded.problem}{kept}", "red")
        for path in loaded.written:
            self.say("check", f"wrote {path}", "dim")
        return loaded

    def _tell_proof(self) -> None:
        from towpath.cli.dev_lines import proof_line

        for said in self._checks.proof() or ():
            self.show(proof_line(self._width, said))

    def _take(self, client: "StackClient", loaded: "Loaded", began: float | None = None) -> None:
        """Let what runs be what the files say: new workers start, gone ones stop, those that are concerned restart.

        What was saved is forgotten once it runs, not before: the save that fixes one file takes the others along.
        """
        from towpath.stack.client import StackClient
        from towpath.stack.supervisor.spec import State

        if loaded.problem:
            return
        before = self._loaded
        self._width = max([12, *map(len, loaded.workers)])
        root = self._settings.root
        changed = sorted(self._untaken)
        if before is not None:
            self._provide(changed, loaded, before)
        imports = Imports(root, CODE)
        concerned = imports.concerned(loaded.workers, changed)
        if before is not None:
            concerned |= self._imports.concerned(before.workers, changed)  # of files that are gone
            concerned |= {name for name, said in loaded.topics.items() if before.topics.get(name) != said}
            concerned |= {name for name, modules in loaded.workers.items() if before.workers.get(name) != modules}
        if root / "towpath.toml" in changed:
            self._settings = load_settings(root)
            concerned |= loaded.workers.keys()
        known = {name: one.state for name, one in client.status().items()}
        started = [name for name in loaded.workers if known.get(name) in {None, State.STOPPED, State.FAILED}]
        if before is None:  # they run what the files said when they began, whoever began them
            earlier = [name for name in loaded.workers if name not in started]
            for name in earlier:
                self.say(name, "ran already: it begins anew, with the files as they are", "dim")
            self._side_by_side(StackClient.stop, earlier)
            started += earlier
        gone = [name for name in (before.workers if before else ()) if name not in loaded.workers]
        # One that died is tried at once, and not after its pause: what was saved may be its fix.
        dead = {name for name, state in known.items() if state is State.WAITING}
        again = [name for name in loaded.workers if name in concerned | dead and name not in started]
        self._start(client, started)
        self._side_by_side(StackClient.restart, again)
        self._loaded, self._imports = loaded, imports
        self._untaken.clear()
        for name in gone:
            client.stop(name)
            self._awaited.pop(name, None)
            self.say(name, "stopped: it is no longer part of the project")
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
            client.start(worker_process(self._settings, name, environment=environment, waits_to_begin=self._successors))

    def _side_by_side(self, order: "Callable[[StackClient, str], None]", names: Iterable[str]) -> None:
        """Stop or restart workers side by side: each stop waits for its worker to leave its group."""
        from towpath.stack.client import StackClient

        def give(name: str) -> None:
            with suppress(TowpathError), StackClient(self._settings.stack_home) as client:
                order(client, name)

        threads = [threading.Thread(target=give, args=(name,)) for name in names]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _restart_by_hand(self, client: "StackClient", word: str) -> None:
        from towpath.stack.client import StackClient

        names = [name for name in client.status() if word in {name, name.partition(":")[2]}]
        if not names:
            self.say("dev", f"no worker is called {word!r}", "yellow")
            return
        began = time.monotonic()
        self._side_by_side(StackClient.restart, names)
        self._await(client, names, began)

    def _await(self, client: "StackClient", names: list[str], began: float | None) -> None:
        """Say of these workers when they are ready, or that they cannot be, while the session goes on."""
        first = client.status()
        for name in names:
            self._awaited[name] = Awaited(first.get(name), began, time.monotonic() + READY_SECONDS_MAX)

    def _tell_started(self, client: "StackClient") -> None:
        """Say which of those that are awaited run by now. One that cannot run is told once, and left to be fixed."""
        from towpath.stack.supervisor.spec import State

        now = client.status()
        for name, awaited in tuple(self._awaited.items()):
            one = now.get(name)
            if one is not None and one.state is State.READY:
                after = f" after {time.monotonic() - awaited.began:.1f} s" if awaited.began is not None else ""
                self.say(name, f"runs{after}", "green")
                del self._awaited[name]
            elif not awaited.is_told:
                problem = client.death(name, one, awaited.first)
                if problem is None and time.monotonic() > awaited.end:
                    problem = client.failure(name, f"{name} is not ready after {READY_SECONDS_MAX:.0f} s")
                if problem is not None:
                    self.say(name, problem.cause, "red")
                    self._awaited[name] = replace(awaited, is_told=True)

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
                with suppress(OSError):
                    for said in self._read_on(home.log_file(name)):
                        if not self._quiet:
                            for text in log_lines(name, self._width, said):
                                self.show(text)

    def _pass_earlier_logs(self) -> None:
        """Leave what earlier sessions said to `towpath logs`."""
        from towpath.stack.home import Home

        self._positions = {path: path.stat().st_size for path in Home(self._settings.stack_home).logs.glob("*.log")}

    def _read_on(self, path: Path) -> list[str]:
        size = path.stat().st_size
        position = self._positions.get(path, 0)
        if size < position:
            position = 0  # it was cut
        with path.open("rb") as file:
            file.seek(position)
            said = file.read()
        whole = said[: said.rfind(b"\n") + 1]
        self._positions[path] = position + len(whole)
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
