"""Runs a project's demo on the real stack, and judges it by what databases and topics say, not by what it remembers.

`demo.py` is what a project implements, `verdict.py` and `timeline.py` judge and tell (pure), `kafka.py` and
`postgres.py` read, `runner.py` conducts.
"""

from towpath.demo.demo import Check, Demo, Outcome

__all__ = ["Check", "Demo", "Outcome"]
