"""Runs the checks of `towpath dev`, each in a process of its own, forked from one that has imported the engine alone.

The project's modules are imported anew for each save, and whatever they do at import they do to that process.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from towpath.cli.dev_checks import Loaded

CHECKS = "towpath.cli.dev_checks"
PRELOADED = (
    CHECKS,
    "avro.compatibility",
    "avro.io",
    "avro.schema",
    "fastavro",
    "httpx",
    "towpath.client",
    "towpath.contract.avro_readers",
    "towpath.contract.changes",
    "towpath.contract.check",
    "towpath.contract.closed_set",
    "towpath.contract.locate",
    "towpath.contract.meaning",
    "towpath.contract.promises",
    "towpath.contract.registry",
    "towpath.contract.retention",
    "towpath.contract.topic_changes",
    "towpath.contract.waivers",
    "towpath.contract.witness",
    "towpath.contract.write",
    "towpath.derived_topics",
    "towpath.orchestrator.sagas_view",
    "towpath.orchestrator.topics",
    "towpath.saga",
    "towpath.service",
    "towpath.stack.compose",
    "towpath.stack.lock",
    "towpath.view",
)
"""What the checks import beside the project, much of it late: imported once, and not again at each save."""
PROOF_NICE = 10  # the workers that restart beside it are waited for
LOAD_SECONDS = 5.0
LOOK_SECONDS = 0.1
_GONE = "the project ended the process that imported it"


class Check:
    """One check that runs in a process of its own; `found` is what it told last, None as long as it told nothing."""

    def __init__(self, process: ForkServerProcess, receiver: Connection) -> None:
        self.found: Any = None
        self._process = process
        self._receiver = receiver
        self._has_ended = False

    def has_ended(self, seconds: float = 0.0) -> bool:
        """Wait so long at most for what it tells next; return whether it has told all."""
        while not self._has_ended and self._receiver.poll(seconds):
            try:
                told = self._receiver.recv()
            except EOFError:
                told = None
            if told is None:
                self.end()  # the project may have begun threads that go on
            else:
                self.found = told
        return self._has_ended

    def end(self) -> None:
        """End it, however far it is: it may be long, or have more to say than a pipe holds."""
        if not self._has_ended:
            self._has_ended = True
            self._process.kill()
            self._process.join()


class Checks:
    """The checks of the project in `root`. Not for several threads."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(list(PRELOADED))
        self._loading: Check | None = None
        self._proving: Check | None = None
        self._unproved: tuple[str, ...] | None = None

    def load(
        self, is_overtaken: Callable[[], bool] = lambda: False, waits_long: Callable[[], None] | None = None
    ) -> "Loaded":
        """Generate what follows and import the project; return how it stands.

        An import that takes longer than any should is given up once it `is_overtaken` by another save; before that,
        `waits_long` is called, once.
        """
        from towpath.cli.dev_checks import Loaded

        try:
            check = self._loading = self._start("load")
        except OSError as error:
            return Loaded(f"no process to import the project in could be started: {error}")
        if not check.has_ended(LOAD_SECONDS):
            if waits_long is not None:
                waits_long()
            while not check.has_ended(LOOK_SECONDS):
                if is_overtaken():
                    check.end()
                    return replace(check.found or Loaded(), was_cut=True)
        found: Loaded = check.found or Loaded()
        return found if found.problem or found.workers else replace(found, problem=_GONE)

    def prove(self) -> None:
        """Begin to prove contracts and sagas; what is being proved, of files as they were, is given up."""
        if self._proving is not None:
            self._proving.end()
        self._proving, self._unproved = None, None
        try:
            self._proving = self._start("prove")
        except OSError as error:
            self._unproved = (f"! nothing is proved: no process could be started: {error}",)

    def proof(self) -> tuple[str, ...] | None:
        """Return the lines to show of a proof that has come to its end, once; None as long as it has not."""
        if self._unproved is not None:
            said, self._unproved = self._unproved, None
            return said
        if self._proving is None or not self._proving.has_ended():
            return None
        check, self._proving = self._proving, None
        return check.found or (f"! {_GONE}",)

    def close(self) -> None:
        """End what still runs."""
        for check in (self._loading, self._proving):
            if check is not None:
                check.end()

    def _start(self, work: str) -> Check:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_answer, args=(sender, work, self._root), daemon=True)
        process.start()
        sender.close()  # so that the end of the process is seen here
        return Check(process, receiver)


def _answer(sender: Connection, work: str, root: str) -> None:
    from towpath.cli import dev_checks

    # Ctrl-C reaches every process of the terminal; the one that shows the log alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if work == "prove":
        os.nice(PROOF_NICE)
    getattr(dev_checks, work)(root, sender.send)
    sender.send(None)
