"""The four laws of the house. Each test fails with the file that breaks its law and the way to fix it."""

import ast
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ENGINE = ROOT / "towpath"

# Room -> the rooms that it may import. Below all of them: errors, clock, settings, metrics, logs.
ARROWS: dict[str, frozenset[str]] = {
    "contract": frozenset(),
    "saga": frozenset(),
    "outbox": frozenset({"contract"}),
    "capture": frozenset({"contract", "outbox"}),
    "stream": frozenset({"contract", "outbox"}),
    "positions": frozenset({"stream"}),
    "deadletter": frozenset({"stream"}),
    "view": frozenset({"contract", "outbox", "stream"}),
    "orchestrator": frozenset({"contract", "saga", "stream", "view"}),
    "participant": frozenset({"contract", "outbox", "stream"}),
    "client": frozenset({"contract", "outbox", "saga", "orchestrator", "project"}),
    "replay": frozenset({"contract", "saga", "outbox", "capture", "stream", "orchestrator", "view"}),
    "demo": frozenset(
        {"contract", "outbox", "saga", "stream", "deadletter", "view", "orchestrator", "project", "stack"}
    ),
    "project": frozenset({"contract", "saga", "participant", "view", "orchestrator"}),
    "testing": frozenset(
        {"contract", "saga", "outbox", "stream", "orchestrator", "participant", "client", "view", "project", "parties"}
    ),
    "parties": frozenset({"contract", "saga", "participant", "view", "orchestrator", "project"}),
    "derived_topics": frozenset({"contract", "saga", "participant", "view", "orchestrator", "project", "parties"}),
    "facade": frozenset({"contract", "client", "project", "stack"}),
    "service": frozenset({"contract", "outbox", "participant"}),
    "scaffold": frozenset(),
    "stack": frozenset(
        {"contract", "outbox", "capture", "stream", "positions", "deadletter", "participant", "view", "orchestrator"}
        | {"project"}
    ),
}
# Inside `stream`, a folder may import only the folders before it.
STREAM_ORDER = ("broker", "state", "engine", "faust_app")
GROUND = frozenset({"errors", "clock", "settings", "metrics", "logs", "tracing"})
TOP = frozenset({"cli", "console"})

# Library -> the names of the files that may import it, anywhere in the engine.
TWINS: dict[str, frozenset[str]] = {
    "faust": frozenset({"agent.py", "transport.py"}),
    "mode": frozenset({"agent.py", "transport.py"}),
    "confluent_kafka": frozenset({"kafka.py", "transport.py"}),
    "psycopg": frozenset({"postgres.py"}),
    "psycopg_pool": frozenset({"postgres.py"}),
    "httpx": frozenset({"http.py", "connect.py", "registry.py"}),
    "requests": frozenset(),
    "aiokafka": frozenset(),
    "urllib": frozenset({"http.py"}),
}
# `urllib.parse` opens nothing.
HARMLESS = frozenset({"urllib.parse"})

CLOCK_CALLS = frozenset(
    {
        *("time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today", "date.today"),
        *("time.monotonic", "time.monotonic_ns", "time.perf_counter", "time.sleep"),
    }
)
CHANCE_CALLS = frozenset({"uuid.uuid4", "uuid4", "uuid.uuid1", "uuid1", "os.urandom", "random.random", "random.choice"})
# Where time, ids and chance come in: the port itself, and what runs at the outermost edge of a process.
EDGES = frozenset({"clock.py"})
EDGE_ROOMS = frozenset({"cli", "stack"})


def modules(folder: Path) -> list[Path]:
    """Return every Python file under `folder`."""
    return sorted(path for path in folder.rglob("*.py") if "__pycache__" not in path.parts)


def imported(path: Path) -> Iterator[str]:
    """Yield the dotted name of each import, `from a import b` as `a.b`."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import; write the whole name"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(path: Path) -> str:
    """Return the room that a file of the engine lies in."""
    return path.relative_to(ENGINE).parts[0].removesuffix(".py")


def name(path: Path) -> str:
    """Return a file's path from the top of the repository, as the id of a test."""
    return str(path.relative_to(ROOT))


@pytest.mark.parametrize("path", modules(ENGINE / "saga"), ids=name)
def test_the_saga_room_imports_the_standard_library_and_itself(path: Path) -> None:
    """Law 1: the same code runs in production, in the checker, in simulation and in replay."""
    testing = "testing" in path.relative_to(ENGINE / "saga").parts[0]
    for target in imported(path):
        top = target.split(".")[0]
        pure = top in sys.stdlib_module_names or target.startswith("towpath.saga")
        assert pure or (testing and top == "hypothesis"), f"{name(path)} imports {target}"
        assert top not in {"time", "random", "logging", "socket", "asyncio", "threading"}, (
            f"{name(path)} imports {target}: time, chance and I/O come in as inputs"
        )


@pytest.mark.parametrize("path", modules(ENGINE), ids=name)
def test_the_name_of_a_file_tells_its_io(path: Path) -> None:
    """Law 2: whoever opens a file knows from its name what it may touch."""
    for target in imported(path):
        library = target.split(".")[0]
        if library in TWINS and not any(target.startswith(harmless) for harmless in HARMLESS):
            assert path.name in TWINS[library], (
                f"{name(path)} imports {target}; only {sorted(TWINS[library])} may: move the I/O to its twin"
            )


@pytest.mark.parametrize("path", modules(ENGINE), ids=name)
def test_arrows_between_rooms_point_one_way(path: Path) -> None:
    """Law 3: a room imports only rooms below it, and the engine imports no project."""
    own = room(path)
    for target in imported(path):
        parts = target.split(".")
        assert parts[0] not in {"sagas", "pipelines", "schemas", "tests", "bench"}, f"{name(path)} imports {target}"
        if parts[0] != "towpath" or len(parts) < 2 or own in TOP or own == "__init__":
            continue
        other = parts[1]
        allowed = GROUND if own in GROUND else ARROWS[own] | GROUND | {own}
        assert other in allowed, f"{name(path)} imports {target}; {own} may import {sorted(allowed)}"


@pytest.mark.parametrize("path", modules(ENGINE / "stream"), ids=name)
def test_arrows_inside_the_stream_point_to_the_broker(path: Path) -> None:
    """Law 3, inside the largest room: Faust stands on the engine, the engine on state, and state on the broker."""
    own = path.relative_to(ENGINE / "stream").parts[0]
    for target in imported(path):
        parts = target.split(".")
        if parts[:2] == ["towpath", "stream"] and own in STREAM_ORDER and len(parts) > 2 and parts[2] in STREAM_ORDER:
            assert STREAM_ORDER.index(parts[2]) <= STREAM_ORDER.index(own), f"{name(path)} imports {target}"


def called(path: Path) -> Iterator[tuple[int, str]]:
    """Yield line and dotted name of each call."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call):
            yield node.lineno, ast.unparse(node.func)


@pytest.mark.parametrize("path", modules(ENGINE), ids=name)
def test_time_ids_and_chance_come_in_as_parameters(path: Path) -> None:
    """Law 4: nothing inside reads a wall clock or rolls dice, so a run can be repeated."""
    if path.name in EDGES or room(path) in EDGE_ROOMS:
        return
    for line, call in called(path):
        short = ".".join(call.split(".")[-2:])
        assert short not in CLOCK_CALLS, f"{name(path)}:{line} calls {call}: take a towpath.clock.Clock"
        assert short not in CHANCE_CALLS, f"{name(path)}:{line} calls {call}: take it as a parameter"


# Loops that wait by hand, and why `towpath.clock.wait_until` and `retry` do not fit them.
WAIT_LOOPS = {
    "towpath/clock.py": {"wait_until", "retry"},
    "towpath/stream/broker/kafka.py": {"seek"},  # one error of several kinds is to be waited for
    "towpath/view/versions/postgres.py": {"_follow"},  # it gives up early where waiting cannot help
    "towpath/orchestrator/asking.py": {"send"},  # the rate of requests: no condition is waited for
    "towpath/demo/runner.py": {"_place_all"},  # the rate of orders
    "towpath/cli/run.py": {"_build_when_possible"},  # waits for ever, longer each time
    "towpath/cli/view_building.py": {"progress_of"},  # shows each look
    "towpath/cli/output.py": {"repeat"},  # shows again and again
    "towpath/cli/stack.py": {"_follow"},  # reads a log on, for ever
}


@pytest.mark.parametrize("path", modules(ENGINE), ids=name)
def test_what_waits_uses_the_one_loop(path: Path) -> None:
    """Law 4, of waiting: a loop that sleeps is `wait_until` or `retry`, which any clock moves on; others are named."""
    found = {
        function.name
        for function in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(function, ast.FunctionDef | ast.AsyncFunctionDef)
        for loop in ast.walk(function)
        if isinstance(loop, ast.While)
        for node in ast.walk(loop)
        if isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] == "sleep"
        if not ast.unparse(node.func).startswith("asyncio")
    }
    assert found == WAIT_LOOPS.get(name(path), set()), f"{name(path)}: use towpath.clock.wait_until, or name it here"


def test_only_the_engine_goes_into_the_wheel() -> None:
    """A user's own `sagas` or `schemas` are never shadowed."""
    assert 'packages = ["towpath"]' in (ROOT / "pyproject.toml").read_text(encoding="utf-8")


def test_tests_mirror_rooms() -> None:
    """Each room has a folder of its own in the unit ring, so that its tests are found where one looks for them."""
    rooms = {folder.name for folder in ENGINE.iterdir() if (folder / "__init__.py").exists()}
    tested = {path.relative_to(ROOT / "tests/unit").parts[0] for path in ROOT.glob("tests/unit/*/**/test_*.py")}
    assert rooms <= tested, sorted(rooms - tested)


FILE_LINES_MAX = 600
FUNCTION_LINES_MAX = 90


@pytest.mark.parametrize("path", modules(ENGINE), ids=name)
def test_no_file_and_no_function_outgrows_a_reader(path: Path) -> None:
    """A file past 600 lines or a function past 90 hides a concept that wants a name (generated files aside)."""
    text = path.read_text(encoding="utf-8")
    if text.startswith('"""Generated'):
        return
    assert text.count("\n") <= FILE_LINES_MAX, f"{name(path)} has {text.count(chr(10))} lines"
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno
            assert length <= FUNCTION_LINES_MAX, f"{name(path)}: {node.name} has {length} lines"
