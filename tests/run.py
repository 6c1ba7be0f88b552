"""Runs rings of tests: `python -m tests.run unit integration acceptance`. Exits with 1 if any ring fails.

`unit` runs on two processes. Rings on real parts run in one pytest each way, so that they share one stack.
Arguments after `--` go to pytest: `python -m tests.run integration -- -k outbox`.
"""

import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NO_TESTS_COLLECTED = 5
# Ring -> the folders of its tests. Rings of one group that follow each other share one pytest, and so one stack.
FOLDERS = {
    "unit": ("unit", "tidy", "scenarios", "properties", "histories", "contracts"),
    "conformance": ("conformance",),
    "integration": ("conformance", "integration", "crash"),
    "acceptance": ("acceptance", "chaos"),
    "docker": ("docker",),
    "long": ("long",),
    "crash": ("conformance", "integration", "crash", "acceptance"),
    "chaos": ("chaos",),
}
REAL_PARTS = frozenset({"conformance", "integration", "acceptance"})
SHORT_FORMS = ("-m", "not crash and not chaos")
OPTIONS = {"unit": ("-n", "2"), "crash": ("-m", "crash"), "chaos": ("-m", "chaos", "-s")}


@dataclass(frozen=True, slots=True)
class Run:
    """One pytest: the rings that it covers, its folders and its options."""

    rings: tuple[str, ...]
    folders: tuple[str, ...]
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
    return Run(rings, tuple(f"tests/{name}" for name in wanted if _has_tests(ROOT / "tests" / name)), options)


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
    command = [sys.executable, "-m", "pytest", "-q", *run.options, *extra, *run.folders]
    code = subprocess.run(command, cwd=ROOT, check=False).returncode
    return run, code, time.monotonic() - began


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
