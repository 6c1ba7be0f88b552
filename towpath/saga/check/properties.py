"""What is proved of a saga: each property with its name and its sentence, and the form in which a breach is told."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum


class Property(StrEnum):
    """The properties, by the names that stand in reports, in `--json` and in the files of tests."""

    DEFINITION = "definition"
    TOTAL = "total"
    UNHANDLED = "unhandled"
    STALE = "stale"
    RECORDED = "recorded"
    TIMERS = "timers"
    SAME_KEY = "same_key"
    FORWARD_ORDER = "forward_order"
    FAILURE = "failure"
    POLICY = "policy"
    DEADLINE = "deadline"
    UNDO_OWED = "undo_owed"
    UNDO_ORDER = "undo_order"
    ONE_INBOX = "one_inbox"
    PIVOT = "pivot"
    BRANCHES = "branches"
    DECLINED = "declined"
    EVENTS = "events"
    ENDING = "ending"
    STATUS = "status"
    DEADLOCK = "deadlock"
    ENDS = "ends"
    RECOVERABLE = "recoverable"
    RESUME = "resume"
    COMPLETES = "completes"
    UNREACHABLE = "unreachable"
    FITS_IN_TIME = "fits_in_time"
    MISSING_RESULT = "missing_result"
    BUILDER_RAISES = "builder_raises"
    IMPURE = "impure"
    WRONG_VALUE = "wrong_value"
    LIST_TOO_LONG = "list_too_long"
    AMBIGUOUS = "ambiguous"
    SAME_COMMAND = "same_command"
    CONSTANT = "constant"
    UNDECLARED_LOCK = "undeclared_lock"
    LOCK_ORDER = "lock_order"
    LOCK_KEPT = "lock_kept"
    TOO_LARGE = "too_large"


SENTENCES: dict[Property, str] = {
    Property.DEFINITION: "the definition obeys the rules of the language",
    Property.TOTAL: "every input in every state leads to a decision; none raises",
    Property.UNHANDLED: "what the saga waits for is taken when it comes",
    Property.STALE: "what is repeated, out of date, early or strange is refused, and changes nothing",
    Property.RECORDED: "every decision begins with its one entry for the history",
    Property.TIMERS: "the timers that run are those that the state tells: each attempt has one, nothing else has",
    Property.SAME_KEY: "a retry asks under the same key for the recorded outcome; only a recorded failure of an undo "
    "begins a new round",
    Property.FORWARD_ORDER: "a step begins once, when all that it requires is settled, and never on the way back",
    Property.FAILURE: "a failure turns the saga round",
    Property.POLICY: "an unanswered attempt is followed by the next while there is one, and then given up",
    Property.DEADLINE: "after the saga's deadline nothing is asked any more on the way forward",
    Property.UNDO_OWED: "what was done, or may have been, is undone; what was not is left alone",
    Property.UNDO_ORDER: "what came after a step is undone before it",
    Property.ONE_INBOX: "an undo goes to the inbox that knows its command, or waits until the command was answered",
    Property.PIVOT: "nothing is undone past the pivot",
    Property.BRANCHES: "exactly one branch of a choice is taken, and only what lies in it is done; what stands in "
    "for a step is done only where that one was declined",
    Property.DECLINED: "a failure that is tolerated leaves nothing to undo, and the saga goes on",
    Property.EVENTS: "an event is published once, when its step begins, and never on the way back",
    Property.ENDING: "the saga ends once, with nothing left to do and no timer running",
    Property.STATUS: "the status tells how the steps stand",
    Property.DEADLOCK: "there is always something that can happen next: joins cannot deadlock",
    Property.ENDS: "from everywhere, completed or compensated is reached without a person, if replies come",
    Property.RECOVERABLE: "from every halt, a person can bring the saga to an ending",
    Property.RESUME: "to resume is to retry all that is stuck",
    Property.COMPLETES: "the saga can complete",
    Property.UNREACHABLE: "every step can begin, and every undo can be owed",
    Property.FITS_IN_TIME: "waits, delays and attempts fit in the time that the saga has",
    Property.MISSING_RESULT: "a function never lacks a result that it was written for",
    Property.BUILDER_RAISES: "the functions of the definition do not raise on valid data",
    Property.IMPURE: "the functions of the definition give the same for the same, and change nothing",
    Property.WRONG_VALUE: "the functions of the definition return what they are there for",
    Property.LIST_TOO_LONG: "the lists of the contracts' examples stay within the limits of `each`",
    Property.AMBIGUOUS: "a message is one thing to a saga: its start, a signal or a reply",
    Property.SAME_COMMAND: "an undo is another command than what it undoes",
    Property.CONSTANT: "a condition holds for some of the data that it is tried on, and not for all",
    Property.UNDECLARED_LOCK: "sagas that use the same resource hold it",
    Property.LOCK_ORDER: "sagas take the resources that they share in the same order, one at a time",
    Property.LOCK_KEPT: "a resource that a step holds is given back when the saga compensates",
    Property.TOO_LARGE: "the saga can be explored whole",
}


@dataclass(frozen=True, slots=True)
class Breach:
    """One decision, or one part of a definition, that breaks a property. `subject` names the step, if it is one's."""

    rule: Property
    subject: str
    words: str


@dataclass(frozen=True, slots=True)
class Violation:
    """A breach with the shortest path to it: what happened in turn, and the same as a Mermaid sequence diagram.

    `where` is the file and line of the step's sentence. `test` is the text of a pytest file that fails until the saga
    is fixed; empty where none can be written.
    """

    saga: str
    version: int
    rule: Property
    subject: str
    words: str
    path: tuple[str, ...] = ()
    diagram: str = ""
    test: str = ""
    where: str = ""

    @property
    def sentence(self) -> str:
        """Return the property that is broken, as a sentence."""
        return SENTENCES[self.rule]


def first_of_each(breaches: Sequence[Breach]) -> list[Breach]:
    """Return one breach of each property and subject, the first."""
    return list({(breach.rule, breach.subject): breach for breach in reversed(breaches)}.values())[::-1]
