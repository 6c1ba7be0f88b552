"""What a sentence of the language may say, and of what kind: judged as soon as it is said, before anything reads it.

A type checker says the same, earlier; this is for whoever runs without one. A word that is not known is not swallowed:
an `attemps=7` that nobody reads would leave the default in force, in silence.
"""

import inspect
from collections.abc import Callable, Mapping
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

from towpath.saga.definition import OnTimeout, Participant
from towpath.saga.errors import DefinitionError

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


_KINDS: Mapping[str, tuple[Callable[[object], bool], str]] = {
    **dict.fromkeys(("within", "retry_for", "lasts", "at_most"), (_is_time, "a time, as in seconds(10)")),
    **dict.fromkeys(("attempts", "limit"), (_is_count, "a whole number")),
    **dict.fromkeys(("when", "over", "by", "until", "keyed_by"), (callable, "a function")),
    "enough": (_is_count, "a whole number"),
    "gather enough": (callable, "a function"),
    **dict.fromkeys(("holds", "touches"), (_are_texts, "a name, or a tuple of names")),
    "key": (_is_text, "a text"),
    "on_timeout": (lambda value: isinstance(value, OnTimeout), "one of COMPENSATE, PROCEED, HALT"),
    "backoff": (lambda value: hasattr(value, "factor"), "a Backoff(first, most, factor)"),
    "may_fail": (lambda value: isinstance(value, bool), "True, or leave it out"),
    **dict.fromkeys(("event", "into"), (lambda value: isinstance(value, type), "the class of a record")),
}


def judge_words(where: str, method: str, said: Mapping[str, Any]) -> None:
    """Judge the words that a method was given; `where` names the saga and the step. Raises DefinitionError."""
    known, needed = WORDS[method]
    for name, value in said.items():
        if name not in known:
            raise DefinitionError(f"{where}: {method} knows no {name}=", next_step=_instead(method, name, known))
        judged = _KINDS.get(f"{method} {name}") or _KINDS.get(name)
        if judged is not None and value is not None and not judged[0](value):
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
    near = get_close_matches(name, known, n=1)
    return f"did you mean {near[0]}=?" if near else f"it takes {', '.join(f'{each}=' for each in sorted(known))}"


def judge_participant(where: str, participant: object, command: object) -> None:
    """Judge who is asked, and what builds the command. Raises DefinitionError."""
    if not isinstance(participant, Participant):
        fix = f'Participant("{participant}")' if isinstance(participant, str) else 'Participant("payments")'
        raise DefinitionError(
            f"{where}: {participant!r} is no participant", next_step=f"name it once, as in payments = {fix}"
        )
    if not callable(command):
        raise DefinitionError(f"{where}: {command!r} builds no command", next_step="give the function that builds it")
    judge_functions(where, {"the command": command})


def judge_functions(where: str, functions: Mapping[str, object]) -> None:
    """Refuse functions that must be awaited: the machine calls them, and decides with what they return at once."""
    for name, function in functions.items():
        if inspect.iscoroutinefunction(function) or inspect.isasyncgenfunction(function):
            called = getattr(function, "__name__", name)
            raise DefinitionError(
                f"{where}: {called} is async, and the machine calls it without awaiting it",
                next_step="make it a plain function of its arguments; what must be awaited is a step of its own",
            )


def judge_saga(
    name: object, version: object, deadline: object, starts_on: tuple[object, ...], keyed_by: object = None
) -> None:
    """Judge what a saga itself is given. Raises DefinitionError."""
    where = f"saga {name}"
    if not isinstance(name, str):
        raise DefinitionError(f"{where}: its name is no text", next_step='name it, as in Saga("place_order", ...)')
    if not _is_count(version):
        raise DefinitionError(f"{where}: version={version!r} is no whole number", next_step="count versions from 1")
    if not _is_time(deadline):
        raise DefinitionError(f"{where}: deadline={deadline!r} is no time", next_step="give it one, as in days(4)")
    if keyed_by is not None:
        if not callable(keyed_by):
            raise DefinitionError(
                f"{where}: keyed_by={keyed_by!r} is no function",
                next_step="give it one that returns the key of an event",
            )
        judge_functions(where, {"keyed_by": keyed_by})
    for kind in starts_on:
        if not isinstance(kind, type):
            raise DefinitionError(
                f"{where}: it starts on {kind!r}, which is no class", next_step="name the event's class"
            )
