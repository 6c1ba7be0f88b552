"""What a check costs: `python -m tests.unit.saga.check.figures [NAME ...]`, each saga in a process of its own.

States, processor time and the most memory, of large sagas, of the examples and of the reference project. Both figures
are those of the machine that runs it; the tests hold the number of states.
"""

import os
import resource
import sys
import time
from collections.abc import Callable

from sagas import cancel_order, place_order
from tests.unit.examples.stories import STORIES
from tests.unit.saga.check.test_reduction import LARGE
from towpath.saga import Definition
from towpath.saga.check import Check

SAGAS: dict[str, Callable[[], Definition]] = {
    "place_order": lambda: place_order.saga.definition,
    "cancel_order": lambda: cancel_order.saga.definition,
    **{name: build for name, (build, _) in LARGE.items()},
    **{name: (lambda story=story: story.saga.definition) for name, story in STORIES.items()},  # type: ignore[misc]
}


def measure(name: str) -> None:
    """Check one saga, and print what that cost."""
    definition = SAGAS[name]()
    began = time.process_time()
    reports = Check([definition], time.process_time).run()
    spent = time.process_time() - began
    states = sum(report.states for report in reports)
    mebibytes = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    found = sum(len(report.violations) for report in reports)
    sys.stdout.write(f"{name}: {states:,} states, {found} violations, {spent:.2f} s of CPU, {mebibytes} MiB\n")
    sys.stdout.flush()


def main() -> None:
    """Measure each saga that is named, or all."""
    for name in sys.argv[1:] or SAGAS:
        if os.fork() == 0:
            measure(name)
            os._exit(0)
        os.wait()


if __name__ == "__main__":
    main()
