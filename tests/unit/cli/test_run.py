"""What a worker's successor does before it begins, and what it does then where it has imported what was replaced."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from towpath.cli import run

LOOKS = """
import json, psutil, sys
from towpath.cli import main

class Told:
    buffer = property(lambda self: self)

    def readline(self):
        one = psutil.Process()
        files = [file.path for file in one.open_files()]
        print(json.dumps({"threads": one.num_threads(), "connections": len(one.net_connections()), "files": files}))
        print(json.dumps(sorted(name for name in sys.modules if name.startswith(("sagas", "pipelines", "schemas")))))
        return b""

sys.stdin = Told()
main()
"""


def test_a_successor_reaches_nothing_and_nobody_before_it_begins(tmp_path: Path) -> None:
    """No Kafka, no database, no port, no file, no thread, nothing of the project; it ends where nobody is left."""
    (tmp_path / "towpath.toml").write_text('[project]\nname = "myshop"\n', encoding="utf-8")
    (tmp_path / "sagas").mkdir()
    (tmp_path / "sagas" / "__init__.py").touch()
    command = [sys.executable, "-c", LOOKS, "run", "saga:any", run.WAIT_TO_BEGIN]
    environment = {**os.environ, "TOWPATH_METRICS_PORT": "1"}
    done = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
    has, modules = map(json.loads, done.stdout.splitlines())
    assert has == {"threads": 1, "connections": 0, "files": []}
    assert modules == []
    assert done.stderr == ""


@pytest.mark.parametrize("how", ["left", "written", "swapped", "removed"])
def test_a_successor_begins_anew_where_what_it_has_imported_was_replaced(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, how: str
) -> None:
    """As pip does: it would run half of the old package and half of the new one."""
    part = tmp_path / "engine_part.py"
    part.write_text("one = 1\n", encoding="utf-8")
    other = tmp_path / "other.py"
    other.write_text("one = 2\n", encoding="utf-8")
    os.utime(other, ns=(part.stat().st_atime_ns, part.stat().st_mtime_ns))
    change: dict[str, Callable[[], object]] = {
        "left": lambda: None,
        "written": lambda: part.write_text("one = 12\n", encoding="utf-8"),
        "swapped": lambda: other.replace(part),
        "removed": part.unlink,
    }

    class Told:
        """Tells to begin, once the file was changed."""

        @property
        def buffer(self) -> BytesIO:
            change[how]()
            return BytesIO(b"\n")

    begun: list[list[str]] = []
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(run, "ENGINE", ("engine_part",))
    monkeypatch.setattr(sys, "stdin", Told())
    monkeypatch.setattr(sys, "orig_argv", ["python", "-P", "-c", "main()", "run", "saga:any", run.WAIT_TO_BEGIN])
    monkeypatch.setattr(os, "execv", lambda program, arguments: begun.append([program, *arguments]))
    try:
        run._wait_to_begin()
    finally:
        del sys.modules["engine_part"]
    anew = [sys.executable, "python", "-P", "-c", "main()", "run", "saga:any"]
    assert begun == ([] if how == "left" else [anew])
