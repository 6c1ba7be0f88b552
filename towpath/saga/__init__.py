"""Sagas: defined in Python, proved before they run, decided by a pure machine.

Rule of this room: the standard library and itself, nothing else. No clock, no chance, no I/O: the same code runs in
production, in the checker, in simulation and in replay.
"""

from towpath.saga.advance import Decision, advance
from towpath.saga.definition import Definition, Participant, SecondStart
from towpath.saga.durations import days, hours, minutes, seconds
from towpath.saga.errors import BuilderError, DefinitionError
from towpath.saga.handles import (
    COMPENSATE,
    HALT,
    NO_EFFECT,
    PROCEED,
    Step,
    Undo,
    UndoEach,
    UndoStart,
    one_of,
)
from towpath.saga.language import Saga
from towpath.saga.rules import Backoff
from towpath.saga.state import Cause, SagaState

__all__ = [
    "COMPENSATE",
    "HALT",
    "NO_EFFECT",
    "PROCEED",
    "Backoff",
    "BuilderError",
    "Cause",
    "Decision",
    "Definition",
    "DefinitionError",
    "Participant",
    "Saga",
    "SagaState",
    "SecondStart",
    "Step",
    "Undo",
    "UndoEach",
    "UndoStart",
    "advance",
    "days",
    "hours",
    "minutes",
    "one_of",
    "seconds",
]
