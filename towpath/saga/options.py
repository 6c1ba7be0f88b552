"""What a sentence of the language may say, and of what kind: judged as soon as it is said, before anything reads it.

A type checker says the same, earlier; this is for whoever runs without one. A word that is not known is not swallowed:
an `attemps=7` that nobody reads would leave the default in force, in silence.
"""

import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from typing import Any

from towpath.saga.definition import OnTimeout, Participant, SecondStart
from towpath.saga.durations import days
from towpath.saga.errors import DefinitionError
from towpath.saga.parts import Backoff, ProlongParts, RemindParts
from towpath.saga.spelling import word_meant

VERSION_MAX = 2**31 - 1  # states, history and headers keep it in 32 bits
DEADLINE_MAX = days(36_525)  # a hundred years: what is due stays a date that every tool can write

_TIMING = ("within", "attempts", "retry_for", "backoff")
_SHARED = ("after", "key", "holds", "touches", "needs", "succeeds", *_TIMING)
_SUBSAGA = ("needs", "after", "key", "within", "returns", "undo", "keyed_by")
_COMMAND = ("within", "succeeds")

# Of each method: the words that it takes, and those that it cannot do without.
WORDS: Mapping[str, tuple[tuple[str, ...], tuple[str, ...]]] = {
    "step": ((*_SHARED, "when", "fails", "undo", "instead_of"), _COMMAND),
    "each": ((*_SHARED, "fails", "undo", "over", "limit", "enough"), (*_COMMAND, "over", "limit")),
    "pivot": ((*_SHARED, "fails"), _COMMAND),
    "retriable": ((*_SHARED, "when"), _COMMAND),
    "retriable_each": ((*_SHARED, "over", "limit"), (*_COMMAND, "over", "limit")),
    "wait": (
        ("needs", "after", "when", "succeeds", "fails", "within", "on_timeout", "reminds", "prolonged"),
        ("succeeds", "within", "on_timeout"),
    ),
    "gather": (
        ("of", "into", "by", "limit", "enough", "ended_by", "fails", "within", "on_timeout", "after", "reminds"),
        ("of", "into", "by", "limit", "within", "on_timeout"),
    ),
    "delay": (("needs", "after", "lasts", "until", "at_most"), ()),
    "subsaga": (_SUBSAGA, ("within",)),
    "subsaga_each": ((*_SUBSAGA, "over", "limit", "may_fail"), ("within", "over", "limit")),
    "choose": (("needs", "after", "by", "options"), ("by", "options")),
    "publish": (("needs", "after", "key", "event"), ("event",)),
    "result": (("needs", "event"), ("event",)),
    "then_starts": (("needs",), ()),
    "Undo": (_TIMING, ()),
    "Remind": (("event", "every", "times"), ("event", "every", "times")),
    "Prolong": (("on", "by", "times"), ("on", "by", "times")),
    "UndoStart": (_TIMING, ("within",)),
}

_WHY_NOT: Mapping[tuple[str, str], str] = {
    ("pivot", "when"): "a saga always passes its pivot; put the condition on the steps before it, or choose a branch",
    ("pivot", "undo"): "what the pivot did stays done: make it a step if it can be undone",
    ("retriable", "fails"): "past the pivot nothing is undone, so no failure can be declared: let the step precede it",
    ("retriable", "undo"): "past the pivot nothing is undone: let the step precede it",
    ("subsaga", "when"): "put the condition on a choice: saga.choose(...), and start the sub-saga in a branch",
    ("subsaga", "attempts"): "a sub-saga is started once, and retries by itself: leave it out",
    ("subsaga", "over"): "a list of sub-sagas is declared by saga.subsaga_each(...)",
    (
        "gather",
        "needs",
    ): "it gathers by the start event and the signals alone: say after=, and read results where it is needed",
    ("gather", "succeeds"): "say ended_by=, an event that ends it, or enough=, a function",
    ("each", "when"): "an empty list does the same: let over= return none",
    ("Undo", "by"): "there it may be undone before it is done here: leave it out, the step's own participant undoes it",
}


def _is_time(value: object) -> bool:
    return isinstance(value, timedelta)


def _is_count(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_text(value: object) -> bool:
    return isinstance(value, str)


def _are_texts(value: object) -> bool:
    return isinstance(value, str) or (isinstance(value, tuple) and all(isinstance(each, str) for each in value))


def _is_backoff(value: object) -> bool:
    return isinstance(value, Backoff) and _is_time(value.first) and _is_time(value.most) and _is_count(value.factor)


def _are_classes(value: object) -> bool:
    kinds = getattr(value, "classes", value if isinstance(value, tuple) else (value,))
    return bool(kinds) and all(isinstance(kind, type) for kind in kinds)


def _are_branches(value: object) -> bool:
    """Say whether they are two names or more, in an order that is the same in every process (which a set's is not)."""
    return isinstance(value, list | tuple) and len(value) > 1 and all(isinstance(name, str) for name in value)


def _is_reminder(value: object) -> bool:
    return isinstance(getattr(value, "parts", None), RemindParts)


def _is_prolonging(value: object) -> bool:
    return isinstance(getattr(value, "parts", None), ProlongParts)


_KINDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(
        ("within", "retry_for", "lasts", "at_most", "every", "Prolong by"), (_is_time, "a time, as in seconds(10)")
    ),
    **dict.fromkeys(("attempts", "limit", "times"), (_is_count, "a whole number")),
    **dict.fromkeys(("when", "over", "by", "until", "keyed_by"), (callable, "a function")),
    "enough": (
        lambda value: _is_count(value) and value != 0,
        "a whole number from 1, or leave it out: then all are needed",
    ),
    "gather enough": (callable, "a function"),
    **dict.fromkeys(("holds", "touches"), (_are_texts, "a name, or a tuple of names")),
    "key": (_is_text, "a text"),
    "on_timeout": (lambda value: isinstance(value, OnTimeout), "one of COMPENSATE, PROCEED, HALT"),
    "backoff": (_is_backoff, "a Backoff(first, most, factor): two times, and a whole number"),
    "may_fail": (lambda value: isinstance(value, bool), "True, or leave it out"),
    **dict.fromkeys(("event", "into", "on"), (lambda value: isinstance(value, type), "the class of a record")),
    "of": (_are_classes, "the class of a record, or one_of(...) several"),
    "options": (_are_branches, 'the names of two branches or more, in order, as in options=("card", "voucher")'),
    "reminds": (_is_reminder, "a Remind(function, event=..., every=..., times=...)"),
    "prolonged": (_is_prolonging, "a Prolong(event, by=..., times=...)"),
}


def judge_words(where: str, method: str, said: Mapping[str, Any]) -> None:
    """Judge the words that a method was given; `where` names the saga and the step. Raises DefinitionError."""
    known, needed = WORDS[method]
    for name, value in said.items():
        if name not in known:
            raise DefinitionError(f"{where}: {method} knows no {name}=", next_step=_instead(method, name, known))
        judged = _KINDS.get(f"{method} {name}") or _KINDS.get(name)
        left_out = value is None and name != "key" and name not in needed
        if judged is not None and not left_out and not judged[0](value):
            raise DefinitionError(
                f"{where}: {name}={value!r} is a {type(value).__name__}", next_step=f"give it {judged[1]}"
            )
    missing = [name for name in needed if name not in said]
    if missing:
        raise DefinitionError(
            f"{where}: {method} lacks {', '.join(f'{name}=' for name in missing)}",
            next_step=f"say {', '.join(f'{name}=...' for name in missing)}",
        )
    if method == "delay" and ("lasts" in said) == ("until" in said):
        raise DefinitionError(f"{where}: a delay lasts so long, or until a time", next_step="say lasts= or until=")
    if method == "delay" and "lasts" in said and "at_most" in said:
        raise DefinitionError(
            f"{where}: a delay of a fixed length says at_most=, too", next_step="leave it out, or say until="
        )
    if method == "delay" and "until" in said and "at_most" not in said:
        raise DefinitionError(f"{where}: a delay until a time lacks at_most=", next_step="say how long it may last")
    endless = method == "gather" and said.keys().isdisjoint(("enough", "ended_by"))
    if endless and said["on_timeout"] is not OnTimeout.PROCEED:
        raise DefinitionError(
            f"{where}: nothing ends it but its time, and that does not go on",
            next_step="say enough=, a function, or ended_by=, an event; or on_timeout=PROCEED",
        )
    judge_functions(where, said)


def _instead(method: str, name: str, known: tuple[str, ...]) -> str:
    if (method, name) in _WHY_NOT:
        return _WHY_NOT[method, name]
    return word_meant((name,), sorted(known))


def judge_participant(where: str, participant: object, command: object) -> None:
    """Judge who is asked, and what builds the command. Raises DefinitionError."""
    if not isinstance(participant, Participant):
        fix = f'Participant("{participant}")' if isinstance(participant, str) else 'Participant("payments")'
        raise DefinitionError(
            f"{where}: {participant!r} is no participant", next_step=f"name it once, as in payments = {fix}"
        )
    judge_builder(where, command)


def judge_builder(where: str, command: object) -> None:
    """Judge what builds a command, or an event. Raises DefinitionError."""
    if not callable(command):
        raise DefinitionError(f"{where}: {command!r} builds no command", next_step="give the function that builds it")
    judge_functions(where, {"the command": command})


def judge_functions(where: str, functions: Mapping[str, object]) -> None:
    """Refuse functions that are awaited or yield: the machine calls them, and decides with what they return at once."""
    for name, function in functions.items():
        called = getattr(function, "__name__", name)
        calls = inspect.getattr_static(type(function), "__call__", None)  # of an object that can be called
        if inspect.isgeneratorfunction(function) or inspect.isgeneratorfunction(calls):
            raise DefinitionError(
                f"{where}: {called} yields, and the machine takes what it returns: a generator",
                next_step="let it return its value; a list is returned whole",
            )
        awaited = (inspect.iscoroutinefunction, inspect.isasyncgenfunction)
        if any(is_awaited(each) for is_awaited in awaited for each in (function, calls)):
            raise DefinitionError(
                f"{where}: {called} is async, and the machine calls it without awaiting it",
                next_step="make it a plain function of its arguments; what must be awaited is a step of its own",
            )


def judge_saga(
    name: object, starts_on: tuple[object, ...], cancels: tuple[object, ...], said: Mapping[str, Any]
) -> None:
    """Judge what a saga itself is given. Raises DefinitionError."""
    version, deadline, keyed_by, undo = (said[word] for word in ("version", "deadline", "keyed_by", "undo"))
    wrong = [f"it starts on {each!r}" for each in starts_on if not isinstance(each, type)]
    wrong += [f"it is cancelled by {each!r}" for each in cancels if not isinstance(each, type)]
    second = said["second_start"]
    names = ", ".join(f"SecondStart.{each.name}" for each in SecondStart)
    rules = (
        (isinstance(name, str), "its name is no text", 'name it, as in Saga("place_order", ...)'),
        (_is_count(version), f"version={version!r} is no whole number", "count versions from 1"),
        (
            not _is_count(version) or version <= VERSION_MAX,
            f"version={version!r} is too large",
            "count versions from 1",
        ),
        (_is_time(deadline), f"deadline={deadline!r} is no time", "give it one, as in days(4)"),
        (
            not _is_time(deadline) or deadline <= DEADLINE_MAX,
            "the deadline is more than a hundred years ahead",
            "give it one that somebody will see, or let each instance start the next: saga.then_starts",
        ),
        (bool(starts_on), "it starts on nothing", "name the event's class"),
        (not wrong, f"{''.join(wrong[:1])}, which is no class", "name the event's class"),
        (isinstance(second, SecondStart), f"second_start={second!r} is none", f"give it one of {names}"),
        (undo is None or hasattr(undo, "parts"), f"undo={undo!r} says no undo", "undo=UndoStart(the function, by=...)"),
        (
            keyed_by is None or callable(keyed_by),
            f"keyed_by={keyed_by!r} is no function",
            "give it one that returns the key of an event",
        ),
    )
    for holds, cause, fix in rules:
        if not holds:
            raise DefinitionError(f"saga {name}: {cause}", next_step=fix)
    judge_functions(f"saga {name}", {"keyed_by": keyed_by})
