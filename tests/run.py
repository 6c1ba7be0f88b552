"""Runs rings of tests: `python -m tests.run unit integration acceptance`. Exits with 1 if any ring fails.

`unit` runs on two processes. Rings on real parts run as two pytests side by side, each with a stack of its own: much of
their time is waiting. What the second one prints comes when the first has ended.
Arguments after `--` go to pytest: `python -m tests.run integration -- -k outbox`.
"""

import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NO_TESTS_COLLECTED = 5
# Ring -> the folders of its tests. Rings on real parts that follow each other share their runs, and so the stacks.
INTEGRATION = tuple(f"integration/{folder.name}" for folder in sorted((ROOT / "tests/integration").glob("[a-z]*/")))
FOLDERS = {
    "unit": ("unit", "tidy", "scenarios", "properties", "histories", "contracts"),
    "conformance": ("conformance",),
    "integration": ("conformance", *INTEGRATION, "crash"),
    "acceptance": ("acceptance", "chaos"),
    "docker": ("docker",),
    "long": ("long",),
    "crash": ("conformance", "integration", "crash", "acceptance"),
    "chaos": ("chaos",),
}
BESIDE = ("integration/whole_stacks", "crash", "acceptance", "chaos")
"""Of the folders on real parts, those whose tests run beside the others': half of the time."""
REAL_PARTS = frozenset({"conformance", "integration", "acceptance"})
SHORT_FORMS = ("-m", "not crash and not chaos")
OPTIONS = {"unit": ("-n", "2"), "crash": ("-m", "crash"), "chaos": ("-m", "chaos", "-s")}


@dataclass(frozen=True, slots=True)
class Run:
    """One pytest, or two side by side: the rings that they cover, the folders of each and their options."""

    rings: tuple[str, ...]
    folders: tuple[tuple[str, ...], ...]
    options: tuple[str, ...]


def plan(rings: list[str]) -> Iterator[Run]:
    """Yield the pytest runs that cover `rings`, in the order given. Raises KeyError for a ring that is none."""
    together: list[str] = []
    for ring in rings:
        if ring in REAL_PARTS:
            together.append(ring)
            continue
        if together:
            yield _run(tuple(together), SHORT_FORMS)
            together = []
        yield _run((ring,), OPTIONS.get(ring, ()))
    if together:
        yield _run(tuple(together), SHORT_FORMS)


def _run(rings: tuple[str, ...], options: tuple[str, ...]) -> Run:
    wanted = dict.fromkeys(folder for ring in rings for folder in FOLDERS[ring])
    there = [name for name in wanted if _has_tests(ROOT / "tests" / name)]
    apart = REAL_PARTS.issuperset(rings)
    groups = ([name for name in there if (apart and name in BESIDE) is beside] for beside in (False, True))
    return Run(rings, tuple(tuple(f"tests/{name}" for name in group) for group in groups if group), options)


def _has_tests(folder: Path) -> bool:
    return any(folder.rglob("test_*.py"))


def main(arguments: list[str]) -> int:
    """Run the rings and return the exit code."""
    rings, _, extra = " ".join(arguments).partition(" -- ")
    chosen = rings.split()
    unknown = [ring for ring in chosen if ring not in FOLDERS]
    if unknown or not chosen:
        sys.stderr.write(f"rings are {', '.join(FOLDERS)}; not {', '.join(unknown) or 'none'}\n")
        return 2
    results = [_carry_out(run, extra.split()) for run in plan(chosen)]
    sys.stdout.write("\n")
    for run, code, seconds in results:
        sys.stdout.write(f"{'+'.join(run.rings):32} {'passed' if code == 0 else 'FAILED'}  {seconds:6.1f} s\n")
    return int(any(code for _, code, _ in results))


def _carry_out(run: Run, extra: list[str]) -> tuple[Run, int, float]:
    sys.stdout.write(f"\n=== {' + '.join(run.rings)}\n")
    sys.stdout.flush()
    began = time.monotonic()
    if not run.folders:
        sys.stdout.write("no tests yet\n")
        return run, NO_TESTS_COLLECTED, 0.0
    commands = [[sys.executable, "-m", "pytest", "-q", *run.options, *extra, *group] for group in run.folders]
    return run, side_by_side(commands), time.monotonic() - began


def side_by_side(commands: list[list[str]]) -> int:
    """Run commands at the same time; print what each said one after the other, and return a code that is not 0, if any.

    The first one prints as it goes.
    """
    with ExitStack() as files:
        outputs = [None, *(files.enter_context(tempfile.TemporaryFile()) for _ in commands[1:])]
        processes = [
            subprocess.Popen(command, cwd=ROOT, stdout=output, stderr=output and subprocess.STDOUT)
            for command, output in zip(commands, outputs, strict=True)
        ]
        codes = []
        for process, output in zip(processes, outputs, strict=True):
            codes.append(process.wait())
            if output is not None:
                output.seek(0)
                sys.stdout.write(output.read().decode("utf-8", "replace"))
                sys.stdout.flush()
    return next(filter(None, codes), 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
