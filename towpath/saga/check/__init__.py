"""The proof of a saga: every state that it can reach, explored by the machine that runs in production.

`Check(definitions, clock=...).run()` gives a `Report` for each saga; `explore(definition)` the states themselves.
"""

from towpath.saga.check.explore import Exploration, explore
from towpath.saga.check.properties import SENTENCES, Property, Violation
from towpath.saga.check.report import ASSUMPTIONS, BOUNDS, EXHAUSTIVE, Check, Report, StuckPath
from towpath.saga.check.sampling import Samples

__all__ = [
    "ASSUMPTIONS",
    "BOUNDS",
    "EXHAUSTIVE",
    "SENTENCES",
    "Check",
    "Exploration",
    "Property",
    "Report",
    "Samples",
    "StuckPath",
    "Violation",
    "explore",
]
