"""What a worker refuses at its start, how it ends, and what its successor does before it begins."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest

from tests.next_steps import apart
from towpath.cli import run
from towpath.errors import ExitCode
from towpath.scaffold.plan import project_files
from towpath.scaffold.writing import write_missing

ROOT = Path(__file__).resolve().parents[3]
FORGOTTEN = {
    "TOWPATH_SAGA__FINISHED_RETENTION_DAYS": "14",
    "TOWPATH_STREAM__DEDUP_HORIZON_DAYS": "7",
    "TOWPATH_REGISTRY__URL": "http://127.0.0.1:9",
    "TOWPATH_KAFKA__BOOTSTRAP_SERVERS": "127.0.0.1:9",
}
SAGA_SUM = "[saga] finished_retention_days 14 must be more than 30 (order.events, from which it starts) days: "
VIEW_SUM = (
    "[stream] dedup_horizon_days 7 must be more than 7 ([outbox] keep_days) + 1 (the day that has begun) = 8 days: "
)


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("run saga:place_order", 2, [f"place_order: {SAGA_SUM}", "next: raise [saga] finished_retention_days"]),
        ("run view:order_status", 2, [f"outbox: {VIEW_SUM}", "next: raise [stream] dedup_horizon_days"]),
        ("contracts test", 3, ["retention-sum place_order", SAGA_SUM, "retention-sum outbox", VIEW_SUM]),
    ],
)
def test_retentions_that_do_not_add_up_are_refused_with_their_arithmetic(
    monkeypatch: pytest.MonkeyPatch, command: str, code: int, says: list[str]
) -> None:
    """A saga and a view before they look for any part, which are all away here; offline all of them in one report."""
    for name, value in FORGOTTEN.items():
        monkeypatch.setenv(name, value)
    said = apart(ROOT, *command.split(), seconds=60).leads_on()
    assert said.code == code, said.text
    for words in says:
        assert words in said.text


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


IMPORTS = """
import importlib, sys
from pathlib import Path
from towpath.cli import dev_processes, run
from towpath.settings import load_settings

what, root = sys.argv[1:]
for name in run.ENGINE if what == "worker" else dev_processes.PRELOADED:
    importlib.import_module(name)
before = set(sys.modules)
if what == "worker":
    from towpath.logs import configure_logs
    from towpath.project import load_sagas, load_services, view_workers
    from towpath.tracing import configure_tracing

    settings = load_settings(Path(root))
    configure_logs(settings, worker="any")
    configure_tracing(settings, service="any")
    load_services(settings), load_sagas(settings), view_workers(settings)
else:
    from towpath.cli import dev_checks

    dev_checks.load(root, lambda found: None)
    dev_checks.prove(root, lambda found: None)
new = {name for name in set(sys.modules) - before if name.partition(".")[0] not in sys.stdlib_module_names}
print("\\n".join(sorted(new)))
"""


@pytest.mark.parametrize("what", ["worker", "check"])
def test_what_waits_has_imported_all_that_is_not_the_projects(tmp_path: Path, what: str) -> None:
    """What is imported later costs each save: it was half a second of the check, and a quarter of a worker's start."""
    write_missing(tmp_path, project_files("myshop", "0.1.0"))
    generated = (
        "from pathlib import Path; from towpath.settings import load_settings; "
        f"from towpath.cli.follow import write_what_follows; write_what_follows(load_settings(Path({str(tmp_path)!r})))"
    )
    for code, arguments in ((generated, []), (IMPORTS, [what, str(tmp_path)])):
        command = [sys.executable, "-c", code, *arguments]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    assert {name.partition(".")[0] for name in done.stdout.split()} == {"pipelines", "sagas", "schemas"}, done.stdout


EXITS = """
import sys
from pathlib import Path
from tests.unit.orchestrator.test_builder_exits import buy, raising, three
from towpath.cli import main, run

village = three(Path(sys.argv.pop()), buy(builds=raising(SystemExit(0))))
run.build_worker = lambda settings, name, slot, tell: village._app(name.partition(":")[2])
try:
    main()
finally:
    print(sum(village.broker.committed_offsets("village-saga-buy").values()), len(village.sent("payment.commands")))
"""


def test_a_worker_whose_function_exits_with_0_ends_with_another_code(tmp_path: Path) -> None:
    """Whoever started it, and the supervisor, must see that it did not end in good order, and where it stands."""
    command = [sys.executable, "-c", EXITS, "run", "saga:buy", str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False, cwd=ROOT)
    assert (done.returncode, done.stdout.strip()) == (ExitCode.FAILED, "0 0"), done.stderr
    *_, told, kept, next_step = done.stderr.splitlines()
    assert "order.events[0]@1: SystemExit (0) was raised by a handler" in told
    assert "nothing of this unit of work was committed" in kept
    assert "fix the handler" in next_step
