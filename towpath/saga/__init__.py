"""Sagas: defined in Python, proved before they run, decided by a pure machine.

Rule of this room: the standard library and itself, nothing else. No clock, no chance, no I/O: the same code runs in
production, in the checker, in simulation and in replay.

THE RULES OF THE MACHINE (advance.py)
An input changes one step (or makes the whole saga compensate); then the graph is settled: forward, whatever has become
ready begins; backward, whatever may be undone now is undone. These are the rules.

FORWARD
 1. A step begins when all that it requires is settled (succeeded, skipped or declined). Its condition is asked then,
    once. If it does not hold, the step is skipped and those that need it receive None.
 2. Every attempt of a command has a deadline. An attempt that is not answered in time is followed, after a pause with
    full jitter, by the next one under the same idempotency key, which asks for the recorded outcome and never for a
    second effect; until attempts or time are used up.
 3. A reply is matched by step, item, direction, attempt and round. Attempts of one round share one recorded outcome, so
    the reply to an earlier attempt of the round settles the step as well as the latest one does (else a participant
    slower than one deadline would never be heard); an attempt that was never sent, another round, or the other
    direction, is refused. A timer must match exactly.
 4. A wait takes the first answer. One that comes before the wait has begun is kept and taken when it begins, because
    a signal and the reply that begins its wait travel in different partitions of time: a person's decision is not lost
    for having been quick. Later answers are refused. A wait may remind while nobody answers: an event every so often,
    as many times as it says; and an event may prolong it, as many times as it says.
 5. A choice is decided when it begins, once: one of its branches is taken, what lies in the others is skipped.
 6. A business failure that is tolerated settles its step as declined: it owes nothing, and those that need it receive
    that reply. A step that stands in for another begins only if that one was declined; else it is skipped, and those
    that need it receive the other's result.
 7. Events are published when their step begins, which settles it; the saga's result is the last of them. After all
    else, and only where the saga completes, the next instance may be started, by the decision that completes it: where
    items of an `each` that were not needed are still being undone, once they are.

COMPENSATING
 8. Before the pivot is sent, the saga starts compensating on a business failure, on attempts used up, on a wait that
    timed out (where that means to compensate), on the saga's deadline, on cancel, by a person or by an event that means
    it. Sending the pivot is the point of no return: after that only its own business failure makes the saga compensate,
    and cancel and compensate are refused.
 9. Past the point of no return a step whose attempts are used up is stuck, and at the saga's deadline every step under
    way is. A stuck step holds back only what requires it; a late answer to it is still taken. The saga is stuck while
    any step is.

BACKWARD
10. An undo is owed from the moment that a command was sent (it may have happened) until a business failure, which by
    contract left no effect, discharges it. Items of an `each` owe one each; the start event may owe one, the last.
11. A step is undone when all that came after it in the graph is; independent branches are undone side by side, and
    so is a step that says that the order of its undo does not matter.
    A step that is unanswered when the saga starts compensating has nothing after it, so its undo is sent at once, and
    its late reply, which could no longer discharge the undo, is refused.
12. Nothing interrupts an undo: neither cancel nor deadline nor operator. It has its own policy; once that is used up,
    or the participant says that it cannot, the step is stuck, and is never forgotten.

PEOPLE
13. Retry sends the next attempt now, with its policy afresh; only after a recorded failure does it begin a new round.
    Skip takes a given reply as the step's own. Resume retries all that is stuck. Cancel and compensate undo.
    Each request is decided once (requests.py), and refused where the step moved on from what the person saw.

WHAT IS REFUSED
14. An input that no rule takes is recorded as refused and leaves the state as it was, but for a person's request, and
    what would prolong a wait, whose ids are remembered: replies, timers and other signals refuse their own repetition
    by matching, these do not. So is a person's request, or a signal that came before its saga, on which a function of
    the definition raises; any other input on which one raises is no input yet, and leaves no trace.
15. A timer that fires before it is due is refused and set again, so that it is never lost.
16. A start that is not to begin (its key has an instance) goes backward at once: only the start itself is undone. A
    sub-saga that has ended answers again a parent that starts it by a further attempt: the answer may have been lost.
17. What an input leads to may be too large for the topic that would take it: the state with a reply in it, or the next
    command. Then a start is refused as in 16, and told so; a reply, a timer or the answer to a wait leaves its step
    stuck (its undo, if it was about that), and at the saga's deadline every step under way; anything else is refused.
    A person retries once the topic takes more (the recorded reply comes again), skips with a smaller reply, or
    compensates: a step that is stuck before the pivot owes its undo.
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
    Prolong,
    Remind,
    Step,
    Undo,
    UndoEach,
    UndoStart,
    one_of,
    tolerated,
)
from towpath.saga.language import Saga
from towpath.saga.parts import Backoff, UndoSubsaga
from towpath.saga.state import Cause, CauseKind, SagaState

__all__ = [
    "COMPENSATE",
    "HALT",
    "NO_EFFECT",
    "PROCEED",
    "Backoff",
    "BuilderError",
    "Cause",
    "CauseKind",
    "Decision",
    "Definition",
    "DefinitionError",
    "Participant",
    "Prolong",
    "Remind",
    "Saga",
    "SagaState",
    "SecondStart",
    "Step",
    "Undo",
    "UndoEach",
    "UndoStart",
    "UndoSubsaga",
    "advance",
    "days",
    "hours",
    "minutes",
    "one_of",
    "seconds",
    "tolerated",
]
