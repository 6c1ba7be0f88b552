"""The long form of the histories: `python -m tests.unit.examples.long [--histories N] [--seed N] [NAME ...]`.

10,000 histories of each saga by default. Prints one line a saga; exit code 1 where a promise was broken.
"""

import argparse
import sys

from tests.unit.examples.model import Broken, play
from tests.unit.examples.stories import STORIES


def main() -> int:
    """Play the histories that the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", default=[], choices=[*STORIES, []], metavar="NAME")
    parser.add_argument("--histories", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    asked = parser.parse_args()
    broken = 0
    for name in asked.names or STORIES:
        try:
            counts = play(STORIES[name], asked.histories, asked.seed)
        except Broken as error:
            broken += 1
            print(f"{name}: {error}")
        else:
            print(f"{name}: " + ", ".join(f"{count:,} {status.value}" for status, count in counts.items()))
        sys.stdout.flush()
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
