"""How often Python looks for objects that only refer to each other, while a verb makes very many."""

import gc
from collections.abc import Iterator
from contextlib import contextmanager

COLLECTION_THRESHOLD = 100_000
"""Objects between two looks of the cycle collector, in place of 700: a record is a tuple and part of no cycle, and half
of the processor time of reading was spent on looking; of proving contracts, a tenth."""


@contextmanager
def few_collections() -> Iterator[None]:
    """Let the cycle collector look seldom, and not at what is there already, while many objects pass."""
    before = gc.get_threshold()
    gc.freeze()
    gc.set_threshold(COLLECTION_THRESHOLD, *before[1:])
    try:
        yield
    finally:
        gc.set_threshold(*before)
        gc.unfreeze()
