"""Runs the checks of `towpath dev`, each in a process of its own, forked from one that has imported the engine alone.

The project's modules are imported anew for each save, and whatever they do at import they do to that process.
"""

import multiprocessing
import os
import signal
from collections.abc import Callable
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerProcess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from towpath.cli.dev_checks import Loaded

CHECKS = "towpath.cli.dev_checks"
PROOF_NICE = 10  # the workers that restart beside it are waited for
_GONE = "the project ended the process that imported it"


class Checks:
    """The checks of the project in `root`. Not for several threads."""

    def __init__(self, root: Path) -> None:
        self._root = str(root)
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload([CHECKS])
        self._running: list[ForkServerProcess] = []

    def load(self) -> "Loaded":
        """Generate what follows and import the project; return how it stands."""
        from towpath.cli.dev_checks import Loaded

        found: Loaded | None = self._start("load")()
        return found or Loaded(_GONE)

    def prove(self) -> Callable[[], tuple[str, ...]]:
        """Begin to prove contracts and sagas; what is returned waits, and gives the lines to show."""
        wait = self._start("prove")
        return lambda: wait() or (f"! {_GONE}",)

    def close(self) -> None:
        """End what still runs."""
        for process in self._running:
            process.kill()
            process.join()

    def _start(self, work: str) -> Callable[[], Any]:
        receiver, sender = self._context.Pipe(duplex=False)
        process = self._context.Process(target=_answer, args=(sender, work, self._root), daemon=True)
        process.start()
        sender.close()  # so that the end of the process is seen here
        self._running.append(process)

        def wait() -> Any:
            try:
                found = receiver.recv()
            except EOFError:
                found = None
            # Interrupted before that, it is left to `close`: it may be long, or have more to say than a pipe holds.
            process.join()
            self._running.remove(process)
            return found

        return wait


def _answer(sender: Connection, work: str, root: str) -> None:
    from towpath.cli import dev_checks

    # Ctrl-C reaches every process of the terminal; the one that shows the log alone answers it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if work == "prove":
        os.nice(PROOF_NICE)
    sender.send(getattr(dev_checks, work)(root))
