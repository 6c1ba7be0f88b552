"""Runs verbs of the command line inside the test's process: a process of its own costs a second of start-up for each.

`run` of tests/acceptance/test_instances.py runs them as a person does.
"""

import contextlib
import functools
import io
import json
import os
import sys
from contextlib import redirect_stderr, redirect_stdout
from subprocess import CompletedProcess
from typing import Any
from unittest.mock import patch

from tests.stack_fixture import ROOT, RunningStack
from towpath import cli


@functools.cache
def _register_once() -> None:
    cli._register()


def run_here(stack: RunningStack, *arguments: str) -> CompletedProcess[str]:
    """Run a verb with nobody at the terminal; return how it ended, and what it printed."""
    _register_once()
    out, err = io.StringIO(), io.StringIO()
    with (
        contextlib.chdir(ROOT),
        patch.object(sys, "argv", ["towpath", *arguments]),
        patch.object(sys, "stdin", io.StringIO()),
        patch.object(cli, "_register", lambda: None),
        patch.dict(os.environ, {**stack.environment, **os.environ}),
        redirect_stdout(out),
        redirect_stderr(err),
    ):
        code: object = 0
        try:
            cli.main()
        except SystemExit as ended:
            code = ended.code
    return CompletedProcess(
        arguments, code if isinstance(code, int) else int(code is not None), out.getvalue(), err.getvalue()
    )


def found_here(stack: RunningStack, *arguments: str) -> Any:
    """Return what a verb prints as JSON."""
    done = run_here(stack, *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)
